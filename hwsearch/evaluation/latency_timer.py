"""Latencies of models: timing jobs with bridges for a search, one job for its front."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from hwsearch.devices import Device, Latency, MeasureSettings, with_batch
from hwsearch.devices.fingerprint import digest
from hwsearch.errors import DeviceError, EvaluationError
from hwsearch.evaluation.attempt import successes
from hwsearch.evaluation.build import BuiltModel, BuiltModels
from hwsearch.evaluation.measurements import (
    BATCH_LATENCY,
    LATENCY,
    REPEATED_WEIGHTS,
    latency_measurement,
    ratio_measurement,
)
from hwsearch.evaluation.outliers import Pace
from hwsearch.evaluation.timing_jobs import JOB, TimingJobs, as_bridge
from hwsearch.space import Architecture, SearchSpace
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement, Purpose


class LatencyTimer:
    """Measures latencies at one batch size, those of a search in jobs that repeat earlier models.

    Attributes:
        quantity: What it measures: ``latency``, or ``batch_latency`` for another batch size than
            that of the device.
        context: What determines a latency besides the architecture.
        pace: Pace of the accepted latencies.
        bridges: Architectures that jobs repeat if the store has none for it, as where another
            process chose them.
        lost: Keys of bridges that could not be built or timed, which are not chosen again.

    Args:
        space: The space of the architectures.
        device: The device that times them, with its batch size.
        models: The cache in which bridges are built.
        check_device: Raises DeviceLostError if results of a job are errors of a lost device.
    """

    def __init__(
        self,
        space: SearchSpace,
        device: Device,
        models: BuiltModels,
        check_device: Callable[[Iterable[object]], None],
        quantity: str = LATENCY,
    ) -> None:
        self._space, self._device, self._models = space, device, models
        self._check_device, self.quantity = check_device, quantity
        self.context = f"{device.spec} {digest(device.fingerprint())}"
        self.pace = Pace()
        self.bridges: Sequence[Architecture] = ()
        self.lost: set[str] = set()

    def with_batch(self, batch: int) -> "LatencyTimer":
        """Return the timer of a batch size; that of the device's own is this one.

        Raises:
            InputError: The device has no option for it.
        """
        device = with_batch(self._device, batch)
        if device is self._device:
            return self
        return LatencyTimer(self._space, device, self._models, self._check_device, BATCH_LATENCY)

    def known(self, key: str, store: Store) -> Measurement | None:
        """Return the latency of the search as it is stored, if there is one."""
        return store.find(key, self.quantity, self.context, "search")

    def search(
        self,
        ready: Mapping[Architecture, BuiltModel],
        macs: Mapping[Architecture, int],
        jobs: TimingJobs,
        store: Store,
        failed: dict[Architecture, EvaluationError],
        seed: int,
        settings: MeasureSettings,
    ) -> None:
        """Time models that have no latency yet in a job after others, and store the latencies.

        Those of bridges are stored too. Errors are added to ``failed``; the pace of models with
        known latencies is believed. A latency that is suspiciously low for its MACs
        (`hwsearch.evaluation.outliers`) is replaced by one from a new process.
        """
        new: dict[Architecture, BuiltModel] = {}
        for arch, n_macs in macs.items():
            known = self.known(arch.key, store)
            if known is not None:
                self.pace.believe(known.value, n_macs)
            elif arch in ready and arch not in failed:
                new[arch] = ready[arch]
        found = self._job(new, jobs, store, failed, seed, settings)
        first = {each.key: each.value for each in found if each.purpose == "search"}
        of_keys = {arch.key: n_macs for arch, n_macs in macs.items()}
        if suspects := self.pace.suspects(first, of_keys):
            found = [each for each in found if each.key not in suspects]
            again = {arch: built for arch, built in new.items() if arch.key in suspects}
            jobs = TimingJobs([*jobs.latencies, *found])
            for latency in self._job(again, jobs, store, failed, seed + 2, settings):
                if latency.key in suspects:
                    self.pace.believe(latency.value, of_keys[latency.key])
                    details = {**latency.details, "suspected_ms": first[latency.key]}
                    latency = replace(latency, details=details)
                found.append(latency)
        store.add_all(found)

    def next_bridges(self, n_models: int, jobs: TimingJobs, store: Store) -> list[Architecture]:
        """Return architectures that the next timing job of n new ones repeats."""
        trials = [store.trial(key) for key in jobs.choose_bridges(n_models, self.lost)]
        archs = self._space.architectures([trial.choices for trial in trials])
        return list(archs) or [a for a in self.bridges if a.key not in self.lost]

    def confirm(
        self,
        models: Mapping[str, Path],
        together: str,
        store: Store,
        seed: int,
        settings: MeasureSettings,
    ) -> dict[str, Measurement | DeviceError]:
        """Time models together, in a process of their own, and store all results or none.

        ``together`` names the set of models in contexts: another set has other measurements.
        Stored results are returned as they are.
        """
        context = f"{self.context}{together}"
        if known := confirmed(store, models, self.quantity, context):
            return known
        if not models:
            return {}
        results: dict[str, Measurement | DeviceError] = {}
        stored: list[Measurement] = []
        measured = self._device.measure(models, seed=seed, settings=settings)
        self._check_device(measured.values())
        for key, latency in measured.items():
            if isinstance(latency, Latency):
                result = self._measurement(key, latency, context, "confirm")
                stored += [result, ratio_measurement(key, latency, context)]
                results[key] = result
            else:
                results[key] = self._error(latency)
        store.add_all(stored)
        return results

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
                result = self._measurement(arch.key, latency, self.context, "search", details)
                found.append(as_bridge(result) if arch in bridges else result)
            elif arch in bridges:
                self.lost.add(arch.key)
            else:
                failed[arch] = self._error(latency)
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

    def _measurement(
        self,
        key: str,
        latency: Latency,
        context: str,
        purpose: Purpose,
        details: Mapping[str, float | str] = MappingProxyType({}),
    ) -> Measurement:
        found = latency_measurement(key, latency, context, purpose, **details)
        return replace(found, quantity=self.quantity)

    def _error(self, error: DeviceError) -> DeviceError:
        """Return an error that names the batch size, where that is not the device's own."""
        if self.quantity == LATENCY:
            return error
        return DeviceError(f"at batch {self._device.fingerprint()['batch']}: {error}")


def confirmed(
    store: Store, models: Iterable[str], quantity: str, context: str
) -> dict[str, Measurement | DeviceError]:
    """Return the stored results of models that were timed together; empty if they were not."""
    stored = {key: store.find(key, quantity, context, "confirm") for key in models}
    failed = DeviceError("failed when the front was timed together")
    return {key: each or failed for key, each in stored.items()} if any(stored.values()) else {}
