"""A real machine's noise on a scripted clock: recorded runs, played back."""

from pathlib import Path

import numpy as np

DATA = Path(__file__).parents[1] / "data"
KINDS = ("nothing", "one-core", "two-cores", "compiling", "copying")
# Quantiles and limits of the statistics were chosen on the first of each kind.
CHOSEN = tuple(f"trace_{kind}_a.npz" for kind in KINDS)
JUDGED = tuple(f"trace_{kind}_b.npz" for kind in KINDS)
SCHEMA = 2
_UNIT_S = 1e-7


class ReplayedMachine:
    """Answers turns with the times of a trace of `tools/record_trace.py`, on its clock.

    One call of `run` plays one recorded round; behind the last one follows the first one. Entries
    are the chosen models under two names each, ``a`` and ``b`` in turn, and the two anchors.

    Args:
        trace: File in `DATA`.
        models: Numbers of the models, None for all.
        start: Where in the trace to begin, from 0 to 1.

    Raises:
        ValueError: The trace has another schema.
    """

    def __init__(self, trace, models=None, start=0.0):
        with np.load(DATA / trace) as found:
            schema = int(found["schema"]) if "schema" in found else 1
            if schema != SCHEMA:
                raise ValueError(
                    f"{trace} has schema {schema}, not {SCHEMA}; record it again by "
                    "tools/record_trace.py"
                )
            self.sessions = int(found["sessions"])
            numbers = found["model"].tolist()
            entries = [
                i for i, n in enumerate(numbers) if models is None or n in (*models, -1, -2)
            ]
            self._run_s = [found[f"run{i}"] * _UNIT_S for i in entries]
            self._off_s = [found[f"off{i}"] * _UNIT_S for i in entries]
        self.n_models = len(entries) - 2
        self.n_rounds = len(self._run_s[0])
        self.now, self._round = 0.0, int(start * self.n_rounds)

    def clock(self):
        return self.now

    def run(self, turns):
        times_s, longest = [], 1
        for index, n in turns:
            per_round = self._run_s[index].shape[1]
            rounds = -(-n // per_round)
            rows = (self._round + np.arange(rounds)) % self.n_rounds
            took_s = self._run_s[index][rows].ravel()[:n]
            self.now += float(took_s.sum() + self._off_s[index][rows].ravel()[:n].sum())
            times_s.append(took_s)
            longest = max(longest, rounds)
        self._round += longest
        return times_s
