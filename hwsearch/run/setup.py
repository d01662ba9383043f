"""Resolution of settings to the parts of a run, checked before anything is written."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.images import read_images
from hwsearch.accuracy.output_check import check_outputs
from hwsearch.accuracy.sources import load_task
from hwsearch.accuracy.task import NO_DATA, Samples, Task
from hwsearch.constraints import Constraint, check_constraints
from hwsearch.devices import load_device
from hwsearch.devices.base import Device
from hwsearch.devices.fingerprint import differences
from hwsearch.errors import InputError, unknown
from hwsearch.evaluation.build import check_conversion
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.kit.device import KitDevice
from hwsearch.kit.table_latency import TableLatency
from hwsearch.objectives import Objective, check_objectives
from hwsearch.optimizer import Optimizer
from hwsearch.quantities import exact_quantities, search_quantities
from hwsearch.run.config import FILE, RunConfig, software_versions
from hwsearch.run.lock import HOLDER, LOCK
from hwsearch.run.progress import Progress
from hwsearch.run.value_sources.base import KINDS, PREDICTOR, ValueSource
from hwsearch.run.working_folder import located, module_directories
from hwsearch.space import Architectures
from hwsearch.supernets.supernet import Supernet
from hwsearch.supernets.zoo import load_supernet
from hwsearch.trial_store import Store

MEANINGLESS = "accuracies mean nothing; latency, MACs and export do not depend on weights"
# Columns of the tables of trials and of the front besides quantities and choices.
TRIAL_COLUMNS = ("number", "key", "round", "origin", "state", "reason")
FORMER_COLUMN = "dropped"  # of trials, in tables that versions up to 0.1 wrote
FRONT_COLUMNS = ("key", "subnet", "weights", "p90_ms", "p99_ms", "rounds", "probability")


@runtime_checkable
class Predicting(Protocol):
    """Predicts a quantity that cannot be measured here."""

    def __call__(self, archs: Architectures) -> NDArray[np.float64]:
        """Predict n values, (n,)."""
        ...

    def interval(self, archs: Architectures) -> tuple[NDArray[np.float64], ...]:
        """Predict n values, low and high ends of their 95% intervals, (n,) each."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The parts of a search.

    Attributes:
        sources: Value sources that the search has before it measures.
        notes: Sentences for users on how the search chooses.
    """

    config: RunConfig
    net: Supernet
    device: Device
    task: Task
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    sources: tuple[ValueSource, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def predicted(self) -> dict[str, Predicting]:
        """Objective -> its predictor, for objectives that cannot be measured here."""
        found = ((o.name, o.prediction) for o in self.objectives)
        return {name: each for name, each in found if isinstance(each, Predicting)}

    @property
    def measured(self) -> list[str]:
        """Names of the objectives that are measured, in order."""
        return [objective.name for objective in self.objectives if objective.computed is None]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the meaning of the numbers, one sentence each."""
        accuracy: tuple[str, ...] = ()
        if not self.task.scores:
            metric = self.task.metric.name
            by = self.source(PREDICTOR).get("name", "a predictor")
            accuracy = (f"no images were read: every {metric} is predicted by {by}",)
        elif self.net.untrained:
            accuracy = (f"weights are {self.net.weights}: {MEANINGLESS}",)
        precision, quantities = self.device.precision, exact_quantities()
        names = [o.name for o in self.objectives if o.name in quantities]
        sizes = [
            f"{name} are those of the float32 model, and the files are {precision}"
            for name in names
            if quantities[name].of_float32 and precision != "fp32"
        ]
        return (*accuracy, *sizes, *self.task.warnings)

    def source(self, kind: str) -> Mapping[str, str | int]:
        """Return the record of a kind of source in ``config.toml``; empty without one."""
        return next((source.recorded for source in self.sources if source.kind == kind), {})

    def objective(self, name: str) -> Objective:
        """Return the objective with a name; it must exist."""
        return next(objective for objective in self.objectives if objective.name == name)

    def with_objective(self, changed: Objective) -> "Setup":
        """Return the setup with another objective of the same name."""
        objectives = tuple(changed if o.name == changed.name else o for o in self.objectives)
        return replace(self, objectives=objectives)

    def evaluator(self, store: Store) -> Evaluator:
        """Return the evaluator of the run with its store."""
        return Evaluator(self.net, self.device, self.task, store, self.config.seed)

    def optimizer(self) -> Optimizer:
        """Return a new optimiser of the run."""
        return Optimizer(
            self.net.space,
            self.objectives,
            seed=self.config.seed,
            constraints=self.constraints,
            tactic=self.config.tactic,
            batch=self.config.batch,
        )

    def read(self, progress: Progress) -> None:
        """Read image files once; raise DataError, before anything is written, for bad ones."""
        read_images(self.task, self.net.input_spec(self.net.space.smallest()[0]), progress)

    def recorded(self) -> dict[str, Any]:
        """Return what the settings resolved to, which must be the same in a resumed run."""
        splits = ("calibration", "search", "report")
        data = {
            split: f"{len(samples)}@{samples.digest}"
            for split in splits
            if self.task.scores and (samples := getattr(self.task, split)) is not None
        }
        return {
            "space": self.net.space.digest,
            "full_space": self.net.full_space.to_json(),
            "weights": self.net.digest,
            "data": data,
            "device": self.device.fingerprint(),
            "objectives": [
                {"name": o.name, "direction": o.direction, "unit": o.unit, "source": o.source}
                for o in self.objectives
            ],
            **{kind: dict(self.source(kind)) for kind in KINDS},
            "versions": software_versions(),
            "warnings": list(self.warnings),
        }


def prepare(
    config: RunConfig,
    net: Supernet | None = None,
    device: Device | None = None,
    directories: tuple[Path, ...] = (),
) -> Setup:
    """Load and check the parts of a run.

    Args:
        config: The settings.
        net: The supernet, if it is loaded already.
        device: The device of the settings, if it is on another machine.
        directories: Where relative paths are looked for; by default the working directory.

    Raises:
        InputError: A name in the settings does not exist or does not fit.
    """
    at = located(config, directories)
    sys.path[:0] = [d for d in module_directories(config, directories) if d not in sys.path]
    device = load_device(at.device if device is None else device)
    net = net if net is not None else load_supernet(at.supernet, at.checkpoint)
    net = net.with_rules(config.freeze, config.only)
    spec = net.input_spec(net.space.smallest()[0])
    task = load_task(at.data, spec, net.family)
    check_names(net, task)
    check_shapes(net, task)
    check_outputs(net, task)
    if net.recalibrate and task.scores and task.calibration is None:
        raise InputError(
            f"data {config.data!r} has no calibration samples, and the batch statistics of "
            f"{net.name!r} need them"
        )
    check_conversion(device, task)
    names = config.objectives or (task.metric.name, LATENCY)
    if not task.scores and task.metric.name not in names:
        raise InputError(
            f"data {NO_DATA!r} predicts {task.metric.name}, which is no objective of this search "
            f"({', '.join(names)}); add objective {task.metric.name}, or give data"
        )
    objectives = check_objectives(make_objective(name, net, task, device) for name in names)
    if all(objective.computed is not None for objective in objectives):
        measurable = [name for name in (task.metric.name, LATENCY) if name not in names]
        raise InputError(
            f"objectives {', '.join(names)} are all computed, so there is nothing to measure; "
            f"add {' or '.join(measurable)}"
        )
    return Setup(
        config=config,
        net=net,
        device=device,
        task=task,
        objectives=objectives,
        constraints=_constraints(config, objectives, task),
    )


def _constraints(
    config: RunConfig, objectives: Sequence[Objective], task: Task
) -> tuple[Constraint, ...]:
    names = [objective.name for objective in objectives]
    for constraint in (Constraint.parse(text) for text in config.constraints):
        name = constraint.objective
        if name not in names and name in search_quantities(task.metric):
            raise InputError(
                f"constraint '{constraint}' is on {name}, which is no objective of this search "
                f"({', '.join(names)}); add objective {name}"
            )
    return check_constraints(config.constraints, names)


def make_objective(name: str, net: Supernet, task: Task, device: Device) -> Objective:
    """Return the objective of a name for one supernet, task and device.

    Raises:
        InputError: The name is unknown, or the device's table is of another supernet.
    """
    if name not in (known := search_quantities(task.metric)):
        raise unknown("objective", name, known)
    quantity, exact, prediction = known[name], None, None
    if quantity.exact is not None:
        exact = partial(net.exact, name)
    elif quantity.measured_by == "device" and isinstance(device, KitDevice):
        prediction = TableLatency(net, device.table)
    return Objective(
        name, quantity.direction, exact=exact, prediction=prediction, unit=quantity.unit
    )


def table_columns(metric: str) -> set[str]:
    """Return the columns of a run's tables besides those of choices."""
    quantities = (metric, f"{metric}_report", LATENCY)
    stated = (f"{name}{end}" for name in quantities for end in ("", "_low", "_high", "_source"))
    return {*TRIAL_COLUMNS, *FRONT_COLUMNS, *exact_quantities(), *stated}


def check_names(net: Supernet, task: Task) -> None:
    """Refuse choices with the name of a column of a run's tables."""
    taken = table_columns(task.metric.name)
    for choice in net.full_space.choices:
        if choice.name in taken:
            raise InputError(
                f"choice {choice.name!r} of {net.name!r} has the name of a column of a run's "
                f"tables ({', '.join(sorted(taken))}); give the choice another name"
            )


def check_shapes(net: Supernet, task: Task) -> None:
    """Refuse data arrays if the architectures have inputs of different shapes."""
    ends = (net.space.smallest()[0], net.space.largest()[0])
    small, large = (tuple(t.shape for t in net.input_spec(arch).inputs) for arch in ends)
    if small != large and task.scores and isinstance(task.search, Samples):
        raise InputError(
            f"data {task.spec!r} are arrays of one shape, but the inputs of {net.name!r} go from "
            f"{_shapes(small)} to {_shapes(large)}; search one shape only (such as --freeze "
            "resolution=224), or read images by --data imagefolder:PATH"
        )


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)


def check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to resume a run with another space, other weights or data, or another device.

    Versions of software may differ, except for the device's runtime.
    """
    changed = [
        differences(_flat(part, before.get(part)), _flat(part, now.get(part)))
        for part in ("space", "weights", "data", "device")
    ]
    if any(changed):
        raise InputError(
            f"run {str(folder)!r} cannot go on here, its numbers would not compare: "
            f"{'; '.join(filter(None, changed))}. Resume it where it began, or start a new one."
        )


def refuse_file(what: str, folder: Path) -> None:
    """Refuse a path if it or a parent is a file."""
    standing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not standing.is_dir():
        raise InputError(
            f"{what} {str(folder)!r}: {str(standing)!r} is a file; "
            "give a folder that does not exist yet"
        )


def check_output(folder: Path) -> None:
    """Refuse a folder that has files, or whose path is or contains a file."""
    refuse_file("output", folder)
    if not folder.exists():
        return
    # A killed process leaves its lock, and the file that it was writing.
    entries = sorted(e.name for e in folder.iterdir() if not _is_left_behind(e.name))
    if FILE in entries:
        raise InputError(
            f"output {str(folder)!r} holds another run; go on with it by "
            f"'hwsearch resume {folder}', or give another folder"
        )
    if entries:
        raise InputError(
            f"output {str(folder)!r} holds {len(entries)} other files ({entries[0]}); "
            "give a folder that is empty or does not exist yet"
        )


def _is_left_behind(name: str) -> bool:
    return name in (LOCK, HOLDER) or name.startswith((f".{FILE}.", f".{HOLDER}."))


def _flat(part: str, value: Any) -> dict[str, str]:
    if isinstance(value, dict):
        return {f"{part}.{name}": str(each) for name, each in value.items()}
    return {part: str(value)}
