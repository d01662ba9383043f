"""A real machine's noise on a scripted clock: recorded runs, played back."""

from pathlib import Path

import numpy as np

from hwsearch.devices.latency_statistics import undisturbed

DATA = Path(__file__).parents[1] / "data"
# Beside other processes on the same cores; beside other tenants of the same physical cores.
TRACES = ("restless_machine.npz", "two_speed_machine.npz")


class ReplayedMachine:
    """Answers runs with the times that `tools/record_trace.py` recorded; the clock is the trace's.

    The next run of a model is the first recorded one that began no earlier than now, and the clock
    moves to its end; behind the end of the trace follows its beginning.

    Args:
        trace: One of `TRACES`.
        start: Where in the trace to begin, from 0 to 1.
        waiting: Whether waiting for a CPU counts, as where the system keeps no account of it.

    Attributes:
        true_ratios: (n_models,) time relative to the anchor's while neither is disturbed: the
            median over the whole trace, eight turns at a time.
    """

    def __init__(self, trace, start, *, waiting=False):
        with np.load(DATA / trace) as found:
            spent = found["run_us"] + found["waited_us"].astype(np.float64)
            self._times_s = (spent if waiting else found["run_us"]) / 1e6
            self._begin_s = found["began_us"] / 1e6
        self._end_s = self._begin_s + spent / 1e6
        self._length_s = float(self._end_s.max())
        self.now = start * self._length_s
        parts = np.array_split(self._times_s, len(self._times_s) // 8)
        typical = np.array([np.median(part, axis=0) for part in parts])
        calm = undisturbed(typical)
        self.true_ratios = np.array(
            [
                np.median((typical[:, i] / typical[:, -1])[calm[:, i] & calm[:, -1]])
                for i in range(typical.shape[1] - 1)
            ]
        )

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
