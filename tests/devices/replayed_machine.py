"""A real machine's noise on a scripted clock: recorded runs, played back."""

from pathlib import Path

import numpy as np

TRACE = Path(__file__).parents[1] / "data" / "restless_machine.npz"


class ReplayedMachine:
    """Answers runs with the times that `tools/record_trace.py` recorded; the clock is the trace's.

    The next run of a model is the first recorded one that began no earlier than now, and the clock
    moves to its end; behind the end of the trace follows its beginning.

    Args:
        start: Where in the trace to begin, from 0 to 1.
        waiting: Whether waiting for a CPU counts, as where the system keeps no account of it.

    Attributes:
        true_ratios: (n_models,) time relative to the anchor's: the median, over the whole trace,
            of that in every hundred turns.
    """

    def __init__(self, start, *, waiting=False):
        with np.load(TRACE) as trace:
            spent = trace["run_us"] + trace["waited_us"].astype(np.float64)
            self._times_s = (spent if waiting else trace["run_us"]) / 1e6
            self._begin_s = trace["began_us"] / 1e6
        self._end_s = self._begin_s + spent / 1e6
        self._length_s = float(self._end_s.max())
        self.now = start * self._length_s
        parts = np.array_split(self._times_s, len(self._times_s) // 100)
        typical = np.array([np.median(part, axis=0) for part in parts])
        self.true_ratios = np.median(typical[:, :-1] / typical[:, -1:], axis=0)

    def clock(self):
        return self.now

    def run(self, index, n):
        times = np.empty(n)
        for position in range(n):
            laps, within = divmod(self.now, self._length_s)
            row = int(np.searchsorted(self._begin_s[:, index], within))
            if row == len(self._begin_s):
                laps, row = laps + 1, 0
            times[position] = self._times_s[row, index]
            self.now = laps * self._length_s + float(self._end_s[row, index])
        return times
