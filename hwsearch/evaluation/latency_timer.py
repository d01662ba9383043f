"""Latencies of models: timing jobs with bridges for a search, one job for its front."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hwsearch.devices import Device, Latency, MeasureSettings
from hwsearch.devices.fingerprint import digest
from hwsearch.errors import DeviceError, EvaluationError
from hwsearch.evaluation.attempt import successes
from hwsearch.evaluation.build import BuiltModel, BuiltModels
from hwsearch.evaluation.measurements import (
    REPEATED_WEIGHTS,
    latency_measurement,
    ratio_measurement,
)
from hwsearch.evaluation.outliers import Pace
from hwsearch.evaluation.timing_jobs import JOB, TimingJobs, as_bridge
from hwsearch.space import Architecture, SearchSpace
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement


class LatencyTimer:
    """Measures latencies, those of a search in jobs that repeat models of earlier jobs.

    Attributes:
        context: What determines a latency besides the architecture.
        pace: Pace of the accepted latencies.
        bridges: Architectures that jobs repeat if the store has none for it, as where another
            process chose them.
        lost: Keys of bridges that could not be built or timed, which are not chosen again.

    Args:
        space: The space of the architectures.
        device: The device that times them.
        models: The cache in which bridges are built.
        check_device: Raises DeviceLostError if results of a job are errors of a lost device.
    """

    def __init__(
        self,
        space: SearchSpace,
        device: Device,
        models: BuiltModels,
        check_device: Callable[[Iterable[object]], None],
    ) -> None:
        self._space, self._device, self._models = space, device, models
        self._check_device = check_device
        self.context = f"{device.spec} {digest(device.fingerprint())}"
        self.pace = Pace()
        self.bridges: Sequence[Architecture] = ()
        self.lost: set[str] = set()

    def search(
        self,
        models: Mapping[Architecture, BuiltModel],
        macs: Mapping[str, int],
        jobs: TimingJobs,
        store: Store,
        failed: dict[Architecture, EvaluationError],
        seed: int,
        settings: MeasureSettings,
    ) -> list[Measurement]:
        """Time new models in a job after others; return latencies, those of bridges too.

        Errors are added to ``failed``; ``store`` has the choices of bridges. A latency that is
        suspiciously low for its MACs (`hwsearch.evaluation.outliers`) is replaced by one from a
        new process.
        """
        found = self._job(models, jobs, store, failed, seed, settings)
        first = {each.key: each.value for each in found if each.purpose == "search"}
        suspects = self.pace.suspects(first, macs)
        if not suspects:
            return found
        found = [each for each in found if each.key not in suspects]
        again = {arch: built for arch, built in models.items() if arch.key in suspects}
        jobs = TimingJobs([*jobs.latencies, *found])
        second = self._job(again, jobs, store, failed, seed + 2, settings)
        for place, latency in enumerate(second):
            if latency.key in suspects:
                self.pace.believe(latency.value, macs[latency.key])
                details = {**latency.details, "suspected_ms": first[latency.key]}
                second[place] = replace(latency, details=details)
        return found + second

    def next_bridges(self, n_models: int, jobs: TimingJobs, store: Store) -> list[Architecture]:
        """Return architectures that the next timing job of n new ones repeats."""
        trials = [store.trial(key) for key in jobs.choose_bridges(n_models, self.lost)]
        archs = self._space.architectures([trial.choices for trial in trials])
        return list(archs) or [a for a in self.bridges if a.key not in self.lost]

    def confirm(
        self, models: Mapping[str, Path], context: str, seed: int, settings: MeasureSettings
    ) -> tuple[dict[str, Measurement | DeviceError], list[Measurement]]:
        """Time models together, in a process of their own.

        Return latencies or errors, and all that is to be stored.
        """
        if not models:
            return {}, []
        results: dict[str, Measurement | DeviceError] = {}
        stored: list[Measurement] = []
        measured = self._device.measure(models, seed=seed, settings=settings)
        self._check_device(measured.values())
        for key, latency in measured.items():
            if isinstance(latency, Latency):
                confirmed = latency_measurement(key, latency, context, "confirm")
                stored += [confirmed, ratio_measurement(key, latency, context)]
                results[key] = confirmed
            else:
                results[key] = latency
        return results, stored

    def _job(
        self,
        new: Mapping[Architecture, BuiltModel],
        jobs: TimingJobs,
        store: Store,
        failed: dict[Architecture, EvaluationError],
        seed: int,
        settings: MeasureSettings,
    ) -> list[Measurement]:
        """Time new models and bridges to earlier jobs; add errors to ``failed``.

        A bridge that cannot be built or timed is left out, and not chosen again. Returns nothing
        if all new models fail.
        """
        if not new:
            return []
        bridges = self._built_bridges(list(new), jobs, store)
        timed = {**new, **bridges}
        models = {arch.key: built.path for arch, built in timed.items()}
        measured = self._device.measure(models, seed=seed, settings=settings)
        self._check_device(measured[arch.key] for arch in new)
        found = []
        for arch, built in timed.items():
            latency = measured[arch.key]
            if isinstance(latency, Latency):
                details: dict[str, float | str] = {JOB: jobs.next_job}
                if built.only_timed:
                    details["weights"] = REPEATED_WEIGHTS
                result = latency_measurement(arch.key, latency, self.context, "search", **details)
                found.append(as_bridge(result) if arch in bridges else result)
            elif arch in bridges:
                self.lost.add(arch.key)
            else:
                failed[arch] = latency
        return found if any(each.purpose == "search" for each in found) else []

    def _built_bridges(
        self, new: Sequence[Architecture], jobs: TimingJobs, store: Store
    ) -> dict[Architecture, BuiltModel]:
        """Return the bridges of a job of new models, built again as they were if they are gone."""
        own = jobs.measured
        while True:
            bridges = self.next_bridges(len(new), jobs, store)
            whole = [a for a in bridges if a.key in own and "weights" not in own[a.key].details]
            built = self._models.get(whole, keep=new)
            built |= self._models.get(bridges, only_timed=True, keep=new)
            failed: dict[Architecture, EvaluationError] = {}
            ready = successes(built, failed)
            if not failed:
                return ready
            self.lost |= {arch.key for arch in failed}
