"""The worker's side: everything that a search is made of, loaded once, and the work done on it."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import hwsearch
from hwsearch.devices import Device, MeasureSettings, load_device
from hwsearch.devices.base import Fingerprint
from hwsearch.devices.frames import Arrays, Header
from hwsearch.errors import DataError, EvaluationError, HwsearchError, InputError
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.machine import thread_limit
from hwsearch.run.cluster.jobs import Findings, Known, read_known, write_findings
from hwsearch.run.cluster.remote_device import Elsewhere, Latencies, differences, runner
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import Setup, prepare
from hwsearch.space import Architecture
from hwsearch.trials import MemoryStore

STOP = "stop"  # field of a reply that ends the search


def settings_of(setup: Setup, threads: int | None = None) -> Header:
    """What a worker is told of a search, as JSON values.

    Args:
        setup: The parts of the search.
        threads: How many a worker computes with; None for all processors of its machine.
    """
    device = setup.device
    recorded = setup.recorded()
    return {
        "version": hwsearch.__version__,
        "config": asdict(setup.config),
        "device": {"spec": device.spec, "slug": device.slug, "precision": device.precision},
        "fingerprint": device.fingerprint(),
        "recorded": {name: recorded[name] for name in ("space", "weights", "data")},
        "folder": str(Path.cwd()),
        "threads": threads,
    }


class Workplace:
    """Does the work of one search; everything that takes long to load is loaded when it is made.

    Args:
        settings: As `settings_of` made them.
        weights: A file that takes the place of the supernet's checkpoint.

    Raises:
        InputError: What the settings name is not here, or is not what it is where the search was
            started.
    """

    def __init__(self, settings: Header, weights: Path | None = None) -> None:
        if settings["version"] != hwsearch.__version__:
            raise InputError(
                f"it has hwsearch {hwsearch.__version__}, the search {settings['version']}; "
                "install the same version on all machines"
            )
        if (folder := Path(settings["folder"])).is_dir():
            os.chdir(folder)  # relative paths are those of the search
        torch.set_num_threads(settings["threads"] or thread_limit())
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in settings["config"].items()
        }
        if weights is not None:
            given["checkpoint"] = str(weights)
        config = RunConfig(**given)
        self._fingerprint: Fingerprint = settings["fingerprint"]
        device = settings["device"]
        self._spec: str = device["spec"]
        self._timed: Device | None = None
        here = Elsewhere(
            runner(self._spec, device["precision"]),
            spec=self._spec,
            slug=device["slug"],
            fingerprint=self._fingerprint,
            timing=self._time,
        )
        self._setup = prepare(config, device=here)
        _check_same(settings["recorded"], self._setup.recorded())
        self._evaluator = self._setup.evaluator(MemoryStore())

    def do(self, header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
        """Do a piece of work.

        Args:
            header: As `hwsearch.run.cluster.jobs.write_work` makes it.
            arrays: The same.

        Returns:
            What `hwsearch.run.cluster.jobs.write_findings` makes of the findings; or a field
            ``stop`` with the kind of error and its text, where the search cannot go on.
        """
        archs = self._setup.net.space.architectures(header["archs"])
        known = read_known(header, arrays)
        try:
            findings = self._findings(list(archs), header["quantities"], known)
        except HwsearchError as error:
            return stopped(error), []
        return write_findings(findings)

    def close(self) -> None:
        """End what runs in the background."""
        self._setup.device.close()
        if self._timed is not None:
            self._timed.close()

    def _findings(
        self, archs: list[Architecture], quantities: list[str], known: Known
    ) -> Findings:
        evaluator, store = self._evaluator, MemoryStore()
        evaluator.store = store
        evaluator.pace.highest, evaluator.pace.known = known.pace
        store.propose(archs, 0, "work")
        store.add_all(known.measurements)
        before = {measurement.identity for measurement in known.measurements}
        tiles = quantities == [LATENCY]
        results = evaluator.search_values(archs, quantities, tiles=tiles)
        return Findings(
            measurements=tuple(m for m in store.measurements() if m.identity not in before),
            failed={
                key: str(result) or type(result).__name__
                for key, result in results.items()
                if isinstance(result, EvaluationError)
            },
        )

    def _time(self, models: Mapping[str, Path], seed: int, settings: MeasureSettings) -> Latencies:
        if self._timed is None:
            self._timed = device_like(self._spec, self._fingerprint)
        return self._timed.measure(models, seed=seed, settings=settings)


def _check_same(was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    flat = [{"space": r["space"], "weights": r["weights"], **r["data"]} for r in (was, now)]
    if different := differences(*flat):
        raise InputError(
            f"it has not what the search has, its scores would not compare: {different}. Give "
            "this machine the same files and packages"
        )


def device_like(spec: str, fingerprint: Fingerprint) -> Device:
    """Return the device of this machine.

    Raises:
        InputError: Its latencies would not compare with those of the fingerprint's device.
    """
    device = load_device(spec)
    if different := differences(fingerprint, device.fingerprint()):
        raise InputError(
            f"device {spec!r} is not the same here, its latencies would not compare: {different}. "
            "End this worker, or start it without --device"
        )
    return device


def stopped(error: HwsearchError) -> Header:
    """Return the reply that ends a search."""
    return {STOP: [type(error).__name__, str(error)]}


def check_reply(header: Header, who: str) -> Header:
    """Return a reply, or raise the error that ends the search.

    Args:
        header: Of the reply.
        who: Whose it is.

    Raises:
        InputError: The worker cannot do this search.
        DataError: Samples cannot be read.
    """
    if STOP not in header:
        return header
    kind, text = header[STOP]
    kinds: dict[str, type[HwsearchError]] = {"DataError": DataError, "InputError": InputError}
    raise kinds.get(kind, HwsearchError)(f"{who}: {text}")
