"""Remote functions that the worker processes of a cluster's nodes run."""

import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hwsearch
from hwsearch.devices import Device, MeasureSettings, load_device
from hwsearch.devices.fingerprint import differences, digest
from hwsearch.errors import EvaluationError, InputError
from hwsearch.kit.device import DeviceInfo, Latencies, RemoteDevice
from hwsearch.machine import usable_cpus
from hwsearch.run.cluster.scheduler import JobResult, is_timed
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import ELASTIC, Setup, elastic_record, prepare
from hwsearch.space import Option
from hwsearch.supernets.checkpoint_files import files_of, split_checkpoint
from hwsearch.supernets.imported import imported_names, load_imported
from hwsearch.supernets.weight_sources import is_random
from hwsearch.trial_store import Store
from hwsearch.trials import Measurement

SearchSpec = Mapping[str, Any]
"""What determines a search, as plain values and one array; see `search_spec`."""

_contexts: dict[str, "WorkerContext"] = {}  # of one search at a time
_devices: dict[str, Device] = {}


def search_spec(setup: Setup) -> SearchSpec:
    """Return what a worker loads a search from, with the bytes of a checkpoint's files."""
    config = asdict(setup.config)
    file: Path | None = None
    elastic = elastic_record(setup.net).get(ELASTIC)
    if elastic is not None:
        config |= {"supernet": Path(elastic["folder"]).name, "checkpoint": None}
    elif setup.config.checkpoint is not None and not is_random(setup.config.checkpoint):
        with suppress(InputError):  # a supernet's own function may take any text
            file, state = split_checkpoint(setup.config.checkpoint)
            config["checkpoint"] = f"{file}#{state}" if state else str(file)
    elif setup.config.supernet in imported_names():
        config["supernet"], file, _ = load_imported(setup.config.supernet)
        config["checkpoint"] = str(file)
    sent = files_of(file) if file is not None and file.is_file() else []
    if elastic is not None:
        sent = [each for each in Path(elastic["folder"]).iterdir() if each.is_file()]
    return {
        "id": uuid.uuid4().hex,
        "version": hwsearch.__version__,
        "config": config,
        "device": DeviceInfo.of(setup.device),
        "recorded": _compared(setup),
        "folder": str(Path.cwd()),
        "weights": {each.name: np.fromfile(each, np.uint8) for each in sent},
        "sent_for": "checkpoint" if elastic is None else "supernet",
    }


class WorkerContext:
    """The supernet, device and task of a search, loaded once in a worker process.

    Raise InputError where this machine lacks something that the settings name, or its version,
    space, weights or data differ from those of the search.
    """

    def __init__(self, spec: SearchSpec) -> None:
        if spec["version"] != hwsearch.__version__:
            raise InputError(
                f"it has hwsearch {hwsearch.__version__}, the search {spec['version']}; install "
                "the same version on all machines"
            )
        if (folder := Path(spec["folder"])).is_dir():
            os.chdir(folder)  # relative paths are those of the search
        config = dict(spec["config"])
        with ExitStack() as stack:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="hwsearch-"))
            name, folder = spec["sent_for"], Path(scratch)
            if name == "supernet":  # the files of an elastic model lie in a folder of its name
                folder /= config[name]
                folder.mkdir()
                config[name] = str(folder)
            elif spec["weights"]:
                config[name] = str(folder / Path(config[name]).name)
            for file, content in spec["weights"].items():
                (folder / file).write_bytes(content.tobytes())
            device = RemoteDevice(spec["device"], _measure)
            self._setup = prepare(RunConfig(**config), device=device)
            if different := differences(spec["recorded"], _compared(self._setup)):
                raise InputError(
                    "its files differ from those of the search, so that scores are not "
                    f"comparable: {different}. Give this machine the same files and packages"
                )
            # Repaired weights of an elastic model are read from its folder while it is used.
            self._files = stack.pop_all() if name == "supernet" else ExitStack()
        if not self._setup.net.writes_onnx:
            import torch  # elastic models are searched without it

            torch.set_num_threads(len(usable_cpus()))
        with Store() as nothing:
            self._evaluator = self._setup.evaluator(nothing)

    def run(
        self,
        choices: Mapping[str, Option],
        quantity: str,
        pace: tuple[float, int],
        bridges: Sequence[Mapping[str, Option]],
        known: Sequence[Measurement] = (),
    ) -> JobResult:
        """Measure one quantity of one architecture; see `hwsearch.run.cluster.scheduler.Job`."""
        arch, *others = self._setup.net.space.architectures([choices, *bridges])
        evaluator = self._evaluator
        for timer in evaluator.timers(self._setup.measured):
            timer.bridges = others
        evaluator.pace.highest, evaluator.pace.known = pace
        with Store() as store:
            evaluator.use(store)
            store.propose([arch, *others], 0, "job")
            store.add_all(known)
            try:
                timed = [each for each in self._setup.measured if is_timed(each)]
                wanted = timed if quantity in timed else [quantity]
                values = evaluator.search_values([arch], wanted, only_timed=is_timed(quantity))
            finally:
                evaluator.close()  # Ray may kill this process, and no other job needs the model
            measurements = tuple(store.measurements(after=len(known)))
        result, failed = values[arch.key], None
        if isinstance(result, EvaluationError):
            failed = str(result) or type(result).__name__
        return JobResult(measurements=measurements, failed=failed)

    def close(self) -> None:
        """End the processes of the device, and remove the files of the supernet."""
        self._setup.device.close()
        self._files.close()


def run_job(
    spec: SearchSpec,
    choices: Mapping[str, Option],
    quantity: str,
    pace: tuple[float, int],
    bridges: Sequence[Mapping[str, Option]] = (),
    known: Sequence[Measurement] = (),
) -> JobResult:
    """Run a job in the context of its search; see `WorkerContext.run`."""
    if spec["id"] not in _contexts:
        for name in list(_contexts):
            _contexts.pop(name).close()
        _contexts[spec["id"]] = WorkerContext(spec)
    return _contexts[spec["id"]].run(choices, quantity, pace, bridges, known)


def measure_models(
    info: DeviceInfo, models: Mapping[str, NDArray[np.uint8]], seed: int, settings: MeasureSettings
) -> Latencies:
    """Measure models, given as name -> bytes, on a device of this node; see `Device.measure`."""
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
        files = {name: Path(scratch) / f"{i}.onnx" for i, name in enumerate(models)}
        for name, path in files.items():
            path.write_bytes(models[name].tobytes())
        return _measure(info, files, seed, settings)


def _measure(
    info: DeviceInfo,
    models: Mapping[str, Path],
    seed: int,
    settings: MeasureSettings,
    *_: object,
) -> Latencies:
    """Measure on a device of this node; its fingerprint is compared once per process."""
    name = f"{info.spec} {digest(info.fingerprint)}"
    if name not in _devices:
        device = load_device(info.spec)
        if different := differences(info.fingerprint, device.fingerprint()):
            raise InputError(
                f"device {device.spec!r} has another fingerprint here, so that latencies are not "
                f"comparable: {different}. Stop this worker, or start it without --device"
            )
        _devices[name] = device
    return _devices[name].measure(models, seed=seed, settings=settings)


def _compared(setup: Setup) -> dict[str, str]:
    """Return what must be equal on all machines: the digests of space, weights and data."""
    recorded = setup.recorded()
    return {"space": recorded["space"], "weights": recorded["weights"], **recorded["data"]}
