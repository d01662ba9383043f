"""Resolution of settings to the parts of a run, checked before anything is written."""

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from hwsearch.accuracy.answers import answered
from hwsearch.accuracy.checks import check_outputs
from hwsearch.accuracy.images import read_images
from hwsearch.accuracy.metric import TOP1
from hwsearch.accuracy.sources import load_task
from hwsearch.accuracy.task import NO_DATA, Labels, Samples, Task
from hwsearch.chains import ChainIndex
from hwsearch.constraints import Constraint, check_constraints
from hwsearch.devices import load_device, with_batch
from hwsearch.devices.base import Device
from hwsearch.devices.fingerprint import differences
from hwsearch.devices.spec import file_precision
from hwsearch.errors import InputError, unknown
from hwsearch.evaluation.build import check_conversion
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.evaluation.measurements import LATENCY, THROUGHPUT
from hwsearch.kit.device import KitDevice
from hwsearch.kit.ssh_device import SshDevice
from hwsearch.kit.table_latency import TableLatency
from hwsearch.loading import load_supernet
from hwsearch.models.export import to_onnx
from hwsearch.models.onnx_file import write_model
from hwsearch.objectives import Objective, check_objectives
from hwsearch.optimizer import Optimizer
from hwsearch.precision import PrecisionSetting, options_of
from hwsearch.prediction.latency import ExpectedWork
from hwsearch.quantities import exact_quantities, search_quantities
from hwsearch.quantization import DYNAMIC, INT8, slow_int8
from hwsearch.run.config import RunConfig, located, make_importable, software_versions
from hwsearch.run.progress import Progress, steps_of
from hwsearch.run.value_sources.base import KINDS, PREDICTOR, ValueSource
from hwsearch.supernets.model_names import is_elastic
from hwsearch.supernets.supernet import Supernet
from hwsearch.trial_store import Store

ELASTIC = "elastic"  # the entry of config.toml on an elastic model
MEANINGLESS = "accuracies mean nothing; latency, MACs and export do not depend on weights"
# With 32 samples the bundled subnets lose 1 to 4 points of top-1, with 64 at most 1.
FEW_CALIBRATION = 64
# Columns of the tables of trials and of the front besides quantities and choices.
TRIAL_COLUMNS = ("number", "key", "round", "origin", "state", "reason")
FORMER_COLUMN = "dropped"  # of trials, in tables that versions up to 0.1 wrote
TIMING_COLUMNS = ("p50_ms", "p90_ms", "p99_ms", "rounds")
FRONT_COLUMNS = ("key", "subnet", "weights", *TIMING_COLUMNS, "probability")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """The parts of a search; ``notes`` are sentences for users on how it chooses."""

    config: RunConfig
    net: Supernet
    device: Device
    task: Task
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    sources: tuple[ValueSource, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def predicted(self) -> dict[str, TableLatency | ValueSource]:
        """Objective -> its predictor, for objectives that cannot be measured here."""
        found = ((o.name, o.prediction) for o in self.objectives)
        return {name: p for name, p in found if isinstance(p, TableLatency | ValueSource)}

    @property
    def measured(self) -> list[str]:
        """Names of the objectives that are measured, in order."""
        return [objective.name for objective in self.objectives if objective.computed is None]

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the meaning of the numbers, one sentence each."""
        found: list[str] = []
        if not self.task.scores:
            metric = self.task.metric.name
            by = self.source(PREDICTOR).get("name", "a predictor")
            found.append(f"no images were read: every {metric} is predicted by {by}")
        elif self.net.untrained:
            found.append(f"weights are {self.net.weights}: {MEANINGLESS}")
        if (precision := file_precision(self.device.precision)) != "fp32":
            float32 = [name for name, each in exact_quantities().items() if each.of_float32]
            found += [
                f"{objective.name} are those of the float32 model, and the files are {precision}"
                for objective in self.objectives
                if objective.name in float32
            ]
        found += self.task.warnings
        n = len(self.task.calibration) if self.task.calibration is not None else 0
        if self.net.recalibrate and self.task.scores and 0 < n < FEW_CALIBRATION:
            found.append(
                f"batch statistics are those of {n} calibration samples: with fewer than "
                f"{FEW_CALIBRATION}, accuracies are lower than they could be"
            )
        return tuple(found)

    def source(self, kind: str) -> Mapping[str, str | int]:
        """Return the record of a kind of source in ``config.toml``; empty without one."""
        return next((source.recorded for source in self.sources if source.kind == kind), {})

    def with_objective(self, name: str, **changes: Any) -> "Setup":
        """Return the setup with fields of one objective changed."""
        objectives = (replace(o, **changes) if o.name == name else o for o in self.objectives)
        return replace(self, objectives=tuple(objectives))

    def evaluator(self, store: Store) -> Evaluator:
        """Return the evaluator of the run with its store."""
        config = self.config
        return Evaluator(self.net, self.device, self.task, store, config.seed, config.batch_sizes)

    def optimizer(self) -> Optimizer:
        """Return a new optimiser of the run."""
        return Optimizer(
            self.net.space,
            self.objectives,
            seed=self.config.seed,
            constraints=self.constraints,
            tactic=self.config.tactic,
            batch=self.config.batch,
            start=self.net.start(self.config.seed),
        )

    def read(self, progress: Progress) -> None:
        """Read image files once, and compare the runtime with that of another machine.

        Raise InputError, before anything is written, for bad images and another version.
        """
        if self.task.scores and isinstance(self.device, SshDevice):
            self.device.check_outputs()
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
            **elastic_record(self.net),
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
    recorded: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress | None = None,
) -> Setup:
    """Load and check the parts of a run; raise InputError for a setting that does not fit.

    ``net`` is a supernet that is loaded already, ``device`` one on another machine. Relative paths
    are looked for in the directories, by default in the working directory. ``recorded`` is what
    the settings resolved to before, in a resumed run.
    """
    at = located(config, directories)
    make_importable(config, directories)
    device = load_device(at.device if device is None else device)
    net = net if net is not None else _load(at, config.supernet, recorded, progress)
    if config.precision is not None:
        chosen = PrecisionSetting.parse(config.precision)
        net = net.with_precision(*chosen.options, per=chosen.per)
    net = net.with_rules(config.freeze, config.only)
    if net.writes_onnx and at.data == "bundled":
        raise InputError(
            f"no samples ship with {config.supernet!r}; give data, such as imagefolder:FOLDER or "
            "npz:FILE"
        )
    task = _load_task(at, net)
    check_names(net, task)
    check_shapes(net, task)
    check_outputs(net, task)
    if net.recalibrate and task.scores and task.calibration is None:
        raise InputError(
            f"data {config.data!r} has no calibration samples, and the batch statistics of "
            f"{net.name!r} need them"
        )
    check_conversion(net, device, task)
    names = config.objectives or (task.metric.name, LATENCY)
    if not task.scores and task.metric.name not in names:
        raise InputError(
            f"data {NO_DATA!r} predicts {task.metric.name}, which is no objective of this search "
            f"({', '.join(names)}); add objective {task.metric.name}, or give data"
        )
    objectives = check_objectives(make_objective(name, net, task, device) for name in names)
    if THROUGHPUT in names:
        for size in config.batch_sizes:
            with_batch(device, size)
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
        notes=(*net.card.facts.get("notes", ()), *_of_int8(net, device)),
    )


def _of_int8(net: Supernet, device: Device) -> list[str]:
    """Return what is to be said of int8 on the processor of a device, if files may be int8."""
    options = options_of(net.precision, device.precision)
    note = slow_int8(device.fingerprint()) if {INT8, DYNAMIC} & set(options) else None
    return [] if note is None else [note]


def _load(
    at: RunConfig, name: str, recorded: Mapping[str, Any], progress: Progress | None
) -> Supernet:
    """Load the supernet of settings whose paths are located; its name is as it was given.

    An elastic model that a run has recorded is opened, so that its trained model is not needed.
    """
    before = recorded.get(ELASTIC, {})
    folder = str(before.get("folder", ""))
    steps = None if progress is None else steps_of(progress)
    if folder and is_elastic(folder) and Path(folder).is_dir():
        net = load_supernet(folder)
        if net.digest == recorded.get("weights"):
            return Supernet(name, net.network, at.checkpoint)
    net = load_supernet(at.supernet, at.checkpoint, data=at.data, progress=steps)
    return Supernet(name, net.network, at.checkpoint)


def _load_task(at: RunConfig, net: Supernet) -> Task:
    """Load the data; those of an elastic model may be without labels.

    Its subnets are then compared with the given model, the largest architecture.
    """
    spec = net.input_spec(net.space.smallest()[0])
    if not net.writes_onnx:
        return load_task(at.data, spec, net.family)
    labels: Labels = "optional" if TOP1.name in (at.objectives or (TOP1.name,)) else "unneeded"
    folder: Path | None = getattr(net.network, "folder", None)  # a tokenizer may lie in it
    task = load_task(at.data, spec, net.family, labels=labels, folder=folder)
    largest = net.network.space.largest()[0]
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as scratch:
        path = Path(scratch) / "model.onnx"
        write_model(path, to_onnx(Supernet(net.name, net.network), largest))
        with closing(load_device("ort-cpu")) as device:
            run = partial(device.run, path)
            whole = net.network.input_spec(largest)
            return answered(task, whole, run, net.digest, at.objectives)


def elastic_record(net: Supernet) -> dict[str, dict[str, str]]:
    """Return the entry of ``config.toml`` on an elastic model: its folder, and its model."""
    folder: Path | None = getattr(net.network, "folder", None)
    if folder is None:
        return {}
    return {ELASTIC: {"folder": str(folder.absolute()), "source": net.card.source}}


def _constraints(
    config: RunConfig, objectives: Sequence[Objective], task: Task
) -> tuple[Constraint, ...]:
    names, known = [objective.name for objective in objectives], search_quantities(*task.metrics)
    for constraint in map(Constraint.parse, config.constraints):
        if (name := constraint.objective) in known and name not in names:
            raise InputError(
                f"constraint '{constraint}' is on {name}, which is no objective of this search "
                f"({', '.join(names)}); add objective {name}"
            )
    return check_constraints(config.constraints, names)


def make_objective(name: str, net: Supernet, task: Task, device: Device) -> Objective:
    """Return the objective of a name; an unknown one, or a table that misfits, is InputError."""
    if name not in (known := search_quantities(*task.metrics)):
        raise unknown("objective", name, known)
    quantity, exact, prediction, covariate = known[name], None, None, None
    if quantity.exact is not None:
        exact = partial(net.exact, name)
    elif quantity.measured_by == "device" and isinstance(device, KitDevice):
        if name != LATENCY:
            raise InputError(
                f"device {device.spec!r} predicts latency from its table, and no {name}; leave "
                f"objective {name} out, or search on the device itself"
            )
        prediction = TableLatency(net, device.table)
    elif quantity.measured_by == "task":
        covariate = net.expected_loss
    elif name == LATENCY:
        covariate = _expected_work(net)
    return Objective(
        name,
        quantity.direction,
        exact=exact,
        prediction=prediction,
        unit=quantity.unit,
        covariate=covariate,
        limit=quantity.limit,
    )


def _expected_work(net: Supernet) -> ExpectedWork | None:
    """Return how latency depends on precision where that is chosen; None if it is unknown."""
    if net.precision is None or net.timed_blocks(net.space.smallest()[0]) is None:
        return None
    try:
        return ExpectedWork(ChainIndex(net.space, net.timed_blocks))
    except InputError:  # a block is decided by too many choices
        return None


def table_columns(*metrics: str) -> set[str]:
    """Return the columns of a run's tables besides those of choices."""
    quantities = (*metrics, *(f"{name}_report" for name in metrics), LATENCY, THROUGHPUT)
    stated = (f"{name}{end}" for name in quantities for end in ("", "_low", "_high", "_source"))
    return {*TRIAL_COLUMNS, *FRONT_COLUMNS, "best_batch", *exact_quantities(), *stated}


def check_names(net: Supernet, task: Task) -> None:
    """Refuse choices with the name of a column of a run's tables."""
    taken = table_columns(*(metric.name for metric in task.metrics))
    for choice in net.full_space.choices:
        if choice.name in taken:
            raise InputError(
                f"choice {choice.name!r} of {net.name!r} has the name of a column of a run's "
                f"tables ({', '.join(sorted(taken))}); give the choice another name"
            )


def check_shapes(net: Supernet, task: Task) -> None:
    """Refuse data arrays if the architectures have inputs of different shapes."""
    small, large = (
        ", ".join("x".join(map(str, tensor.shape)) for tensor in net.input_spec(arch).inputs)
        for arch in (net.space.smallest()[0], net.space.largest()[0])
    )
    if small != large and task.scores and isinstance(task.search, Samples):
        raise InputError(
            f"data {task.spec!r} are arrays of one shape, but the inputs of {net.name!r} go from "
            f"{small} to {large}; search one shape only (such as --freeze resolution=224), or "
            "read images by --data imagefolder:PATH"
        )


def check_same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse another space, weights, data or device, its runtime included; versions may differ."""
    if changed := differences(_flat(before), _flat(now)):
        raise InputError(
            f"run {str(folder)!r} cannot go on here, its numbers would not compare: {changed}. "
            "Resume it where it began, or start a new one."
        )


def _flat(recorded: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in ("space", "weights", "data", "device"):
        value = recorded.get(part)
        fields = value if isinstance(value, dict) else {"": value}
        found |= {f"{part}.{name}".rstrip("."): str(each) for name, each in fields.items()}
    return found
