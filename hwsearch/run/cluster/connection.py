"""The connection to a Ray cluster: its devices, remote functions, and a queue of jobs."""

import logging
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import exceptions

from hwsearch.devices import Device, MeasureSettings, load_device
from hwsearch.errors import DeviceError, HwsearchError, InputError
from hwsearch.kit.device import DeviceInfo, Latencies, RemoteDevice
from hwsearch.run.cluster.scheduler import Job, JobResult, is_timed
from hwsearch.run.cluster.start_node import ENVIRONMENT, NODE, check_reachable, device_resource
from hwsearch.run.cluster.worker_context import SearchSpec, measure_models, run_job
from hwsearch.run.progress import Progress

RETRIES = 1  # of a job whose worker process or node is lost
_PATIENCE_S = 10.0


def connect() -> bool:
    """Connect to the cluster at ``$RAY_ADDRESS``, else on this machine, or raise InputError.

    It returns False where this process is connected already.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    if ray.is_initialized():
        return False
    address = os.environ.get("RAY_ADDRESS")
    try:
        if address is not None:
            check_reachable(address)  # ray.init would try for minutes
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR, namespace=NODE)
    except (ConnectionError, RuntimeError, ValueError) as error:
        where = "on this machine" if address is None else f"at RAY_ADDRESS={address}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"no Ray cluster was found {where} ({reason}). Start one here by 'hwsearch worker', "
            "or set RAY_ADDRESS to HOST:PORT of one"
        ) from error
    return True


def declared_devices() -> list[str]:
    """Return the devices that the nodes declare, sorted."""
    prefix = device_resource("")
    names = sorted(ray.cluster_resources())
    return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]


def remote(function: Callable[..., Any], name: str, device: str | None = None) -> Any:
    """Return a Ray remote function that occupies a node, one with the device if it is given."""
    resources = {NODE: 1.0, **({device_resource(device): 1.0} if device else {})}
    return ray.remote(num_cpus=1, resources=resources, max_retries=RETRIES, name=name)(function)


def result_of(ref: Any) -> Any:
    """Return a remote function's result, or raise its HwsearchError with the same class.

    Raise DeviceError where its worker process or node was lost twice.
    """
    try:
        return ray.get(ref)
    except exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, HwsearchError):
            raise type(cause)(f"a node: {cause}") from error
        raise HwsearchError(f"a node failed: {type(cause).__name__}: {cause}") from error
    except exceptions.RayError as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        raise DeviceError(
            f"its worker was lost {1 + RETRIES} times; the last time: {reason}"
        ) from error


def device_on_node(spec: str) -> Device:
    """Return the device that nodes of the cluster declare; raise InputError if not usable."""
    disconnect = ray.shutdown if connect() else None
    try:
        info = _declared(spec)
        return RemoteDevice(info, partial(_measure_on_node, info.spec), disconnect=disconnect)
    except BaseException:
        if disconnect is not None:
            disconnect()
        raise


def _measure_on_node(
    declared: str,
    info: DeviceInfo,
    models: Mapping[str, Path],
    seed: int,
    settings: MeasureSettings,
    *_: object,
) -> Latencies:
    """Measure on a node that declares the device, where its batch may be another."""
    connect()
    files = {name: np.fromfile(path, np.uint8) for name, path in models.items()}
    measuring = remote(measure_models, f"measure {info.spec}", declared)
    try:
        latencies: Latencies = result_of(measuring.remote(info, files, seed, settings))
    except DeviceError as error:
        return dict.fromkeys(models, error)
    return latencies


def _declared(spec: str) -> DeviceInfo:
    try:
        device = load_device(spec)
    except InputError:
        spec = spec.strip()  # this machine may lack the device
    else:
        spec = device.spec  # as nodes declare it, with default options
        device.close()
    devices = declared_devices()
    if spec not in devices:
        raise InputError(
            f"no node of the Ray cluster declares device {spec!r} (declared: "
            f"{', '.join(devices) or 'none'}); on the machine that is to measure, run "
            f"'hwsearch worker --device {spec} --address {ray.get_runtime_context().gcs_address}'"
        )
    describe = remote(lambda spec: DeviceInfo.of(load_device(spec)), f"describe {spec}", spec)
    info: DeviceInfo = result_of(describe.remote(spec))
    return info


class RayQueue:
    """Runs each job as a Ray task that occupies a node; Ray repeats a lost one once.

    Timings go to nodes that declare the device, other jobs to any. ``spec``, the description of
    the search, is put into Ray's object store; every node fetches it once.
    """

    def __init__(
        self,
        device: str,
        spec: SearchSpec,
        progress: Progress,
        function: Callable[..., JobResult] = run_job,
    ) -> None:
        connect()
        self._device, self._progress = device, progress
        self._spec = ray.put(spec)
        self._measure = remote(function, "measure", device)
        self._score = remote(function, "score")
        self._open: dict[Any, Job] = {}
        self._noted: set[str] = set()

    @property
    def n_workers(self) -> int:
        """Return the number of nodes that have joined by ``hwsearch worker``."""
        return int(ray.cluster_resources().get(NODE, 0))

    def submit(self, job: Job) -> None:
        """Append a job."""
        function = self._measure if is_timed(job.quantity) else self._score
        bridges = [arch.mapping for arch in job.bridges]
        arguments = (job.arch.mapping, job.quantity, job.pace, bridges, job.known)
        self._open[function.remote(self._spec, *arguments)] = job

    def next(self) -> tuple[Job, JobResult]:
        """Wait until a job ends; raise what `hwsearch.run.cluster.connection.result_of` raises."""
        done: list[Any] = []
        while not done:
            done, _ = ray.wait(list(self._open), num_returns=1, timeout=_PATIENCE_S)
            if not done:
                self._note_missing_nodes()
        job = self._open.pop(done[0])
        try:
            return job, result_of(done[0])
        except DeviceError as error:
            return job, JobResult(failed=str(error))

    def close(self) -> None:
        """Cancel all jobs; the nodes stay in the cluster."""
        for ref in self._open:
            ray.cancel(ref, force=True)
        self._open.clear()

    def _note_missing_nodes(self) -> None:
        missing = ""
        if not self.n_workers:
            missing = "no worker is in the Ray cluster"
        elif (
            any(is_timed(job.quantity) for job in self._open.values())
            and self._device not in declared_devices()
        ):
            missing = f"no node declares device {self._device!r} any more"
        if missing and missing not in self._noted:
            self._progress.note(f"{missing}: waiting for one to join by 'hwsearch worker'")
            self._noted.add(missing)
