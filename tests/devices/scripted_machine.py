"""A shared machine on a scripted clock: it drifts, and now and then something gets in the way."""

import numpy as np


class ScriptedMachine:
    """Runs entries of known undisturbed times; `run` and `clock` are what the protocol takes.

    The speed wanders by tens of percent within seconds. One run in thirty is hit by something
    that costs up to several times its length.
    """

    def __init__(self, true_s, seed, *, noise=0.02, wander=0.3, spikes=1 / 30, warmup_s=0.0):
        self.true_s = np.asarray(true_s)
        self.now = 0.0
        self.log = []
        self._rng = np.random.default_rng(seed)
        self._noise, self._wander, self._spikes = noise, wander, spikes
        self._warmup_s = warmup_s
        self._phases = self._rng.uniform(0, 2 * np.pi, 3)

    def clock(self):
        return self.now

    def slowness(self):
        periods = np.array([0.7, 2.9, 11.0])
        waves = np.sin(2 * np.pi * self.now / periods + self._phases).mean()
        cold = 2.0 if self.now < self._warmup_s else 1.0
        return cold * (1 + self._wander * waves)

    def run(self, turns):
        return [self._turn(index, n) for index, n in turns]

    def _turn(self, index, n):
        self.log.append((index, n))
        times = self.true_s[index] * self.slowness()
        times = times * np.exp(self._noise * self._rng.standard_normal(n))
        hit = self._rng.random(n) < self._spikes
        times = times * np.where(hit, 1 + self._rng.exponential(2.0, n), 1.0)
        self.now += float(times.sum())
        return times
