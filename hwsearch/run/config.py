"""Settings of a run, stored in ``config.toml`` with what is needed to repeat it."""

import os
import platform
import sys
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import tomli_w

from hwsearch.devices import mixed_spec
from hwsearch.devices.throughput import BATCH_SIZES, check_batch_sizes
from hwsearch.errors import InputError, unknown
from hwsearch.files import MAX_BYTES, decoded, read_bounded, write_atomic
from hwsearch.optimizer import tactic_names
from hwsearch.optimizer.stopping import Stopping, check_positive
from hwsearch.precision import PrecisionSetting
from hwsearch.quantities import quantity_names
from hwsearch.run.setting import check_settings, setting, text, texts, whole
from hwsearch.supernets.model_names import is_path

FILE, TRIALS = "config.toml", "trials.sqlite"
REPORT, PICTURE = "report.html", "front.png"
# Names in ``config.toml``: the directory, and its path relative to the run's folder.
CWD, FROM_RUN = "working_directory", "working_directory_from_run"
MODULES: Final = "module_directories"  # other directories of modules that the settings name
_AFTER_COLON: Final = {"data": ("cifar10", "imagefolder", "npz"), "device": ("kit",)}
_WHOLE: Final = ("checkpoint", "warm_start")
OBSOLETE = ("race",)  # settings of former versions; they are ignored
# Values to which settings resolved; see `hwsearch.run.setup.Setup.recorded`.
RECORDED: dict[str, type] = {
    "space": str, "full_space": str, "weights": str, "data": dict, "device": dict,
    "objectives": list, "latency_table": dict, "predictor": dict, "warm_start": dict,
    "elastic": dict, "versions": dict, "warnings": list, CWD: str, FROM_RUN: str,
}  # fmt: skip
_MOST_DOTS = 5000
RECORDED_PACKAGES = (
    "hwsearch", "torch", "onnx", "onnxruntime", "numpy", "pymoo", "scikit-learn", "pillow",
    "torchvision",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Settings of a search that determine its results, each declared only here."""

    supernet: str = setting(
        "cifar10-resnet",
        "A name from 'hwsearch supernets', MODULE:FUNCTION, or a trained model: an ONNX file, "
        "what 'hwsearch elastify' made of one, timm:NAME, torchvision:NAME or hf:FOLDER.",
    )
    checkpoint: str | None = setting(
        None,
        "Weights: a file (FILE#ema or FILE#raw where it has both) or random:SEED; by default "
        "those that ship with the supernet.",
        text("a file or random:SEED"),
        example="random:0",
    )
    device: str = setting(
        "ort-cpu:threads=1", "Where latency is measured; see 'hwsearch devices'."
    )
    data: str = setting(
        "bundled",
        "What accuracy is measured on: bundled, none (it is predicted), cifar10:FOLDER, "
        "imagefolder:FOLDER, npz:FILE, text:FILE or MODULE:FUNCTION.",
    )
    objectives: tuple[str, ...] = setting(
        (),
        "Quantities to trade; by default the metric of the data and latency.",
        texts,
        names=quantity_names,
    )
    constraints: tuple[str, ...] = setting(
        (), "Limits on objectives, such as 'latency <= 12'.", texts
    )
    batch_sizes: tuple[int, ...] = setting(
        BATCH_SIZES,
        "Batch sizes for objective throughput, which is samples a second at the best of them.",
        lambda name, value: check_batch_sizes(value, name),
    )
    budget: int = setting(
        40,
        "How many architectures are evaluated, reused ones among them; by default as many as a "
        "warm start reuses, else 40.",
        whole(1),
    )
    minutes: float | None = setting(
        None,
        "The search proposes nothing more after so many, in all; export comes after.",
        check_positive,
        example=30.0,
    )
    stop_gain: float | None = setting(
        None,
        "The search ends when its next 50 evaluations are expected to add less; percent of the "
        "hypervolume.",
        check_positive,
        example=0.5,
    )
    tactic: str = setting("hwsearch", "How architectures are proposed.", names=tactic_names)
    seed: int = setting(0, "Decides every random draw.", whole(0))
    batch: int | None = setting(
        None,
        "Architectures proposed at a time; by default as many as suit the tactic.",
        whole(1),
        example=4,
    )
    freeze: tuple[str, ...] = setting(
        (), "Rules that leave choices one option, such as 'stage1.*=max' or 'a.width=32'.", texts
    )
    only: tuple[str, ...] = setting(
        (), "Rules that leave choices some options, such as 'resolution in 160,192'.", texts
    )
    precision: str | None = setting(
        None,
        "Precisions to choose among, of the network or of each block: 'fp32,int8' or "
        "'fp32,int8:per-block'; by default that of the device.",
        lambda _, value: PrecisionSetting.parse(value),
        example="fp32,int8",
    )
    prior: str = setting(
        "on",
        "Whether a shipped predictor of accuracy may help to choose.",
        names=lambda: ("on", "off"),
    )
    warm_start: str | None = setting(
        None,
        "An earlier run, whose accuracies are not measured again, or a CSV file to predict from.",
        text("a run or a CSV file"),
        example="runs/first",
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def stopping(self) -> Stopping:
        """Criteria that end the search."""
        return Stopping(budget=self.budget, minutes=self.minutes, stop_gain=self.stop_gain)

    def with_device_of_choices(self) -> "RunConfig":
        """Return the settings with a device that takes the files of all chosen precisions."""
        if self.precision is None:
            return self
        options = PrecisionSetting.parse(self.precision).options
        return replace(self, device=mixed_spec(self.device, options))

    def with_limits(self, limits: Mapping[str, Any]) -> "RunConfig":
        """Return the settings with another budget, minutes or stop_gain; None keeps one."""
        return replace(self, **{name: v for name, v in limits.items() if v is not None})


def write_config(folder: Path, config: RunConfig, recorded: Mapping[str, Any]) -> None:
    """Write ``config.toml``: the settings, and the values to which they resolved."""
    search = {name: value for name, value in asdict(config).items() if value is not None}
    content = {"search": {k: list(v) if isinstance(v, tuple) else v for k, v in search.items()}}
    write_atomic(folder / FILE, tomli_w.dumps({**content, "recorded": dict(recorded)}))


def read_config(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Return the settings in ``config.toml``, and the values to which they resolved."""
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"{str(folder)!r} is no run: it has no {FILE}. Start one with "
            f"'hwsearch search --out {folder}'"
        )
    try:
        content = parsed_toml(decoded(read_bounded(path, MAX_BYTES)))
        search, recorded = dict(content["search"]), dict(content["recorded"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    _check_recorded(path, recorded)
    return RunConfig(**known_settings(search, RunConfig, path)), recorded


def known_settings(table: Mapping[str, Any], kind: type, path: Path) -> dict[str, Any]:
    """Return the settings of a dataclass in a TOML table, lists as tuples; refuse others."""
    known = [each.name for each in fields(kind)]
    for name in table:
        if name not in (*known, *OBSOLETE):
            raise unknown(f"setting in {str(path)!r}", name, known)
    return {n: tuple(v) if isinstance(v, list) else v for n, v in table.items() if n in known}


def parsed_toml(content: str) -> dict[str, Any]:
    """Parse TOML from an untrusted source; raise ValueError if it is invalid or too complex."""
    # A key of n parts takes n x n steps and bytes.
    if any(line.count(".") > _MOST_DOTS for line in content.splitlines()):
        raise ValueError(f"a line has more than {_MOST_DOTS:,} dots")
    try:
        return tomllib.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_recorded(path: Path, recorded: Mapping[str, Any]) -> None:
    """Refuse recorded values of a wrong type, and objectives without a required entry."""
    where = f"{str(path)!r} is damaged"
    for name, kind in RECORDED.items():
        if not isinstance(recorded.get(name, kind()), kind):
            raise InputError(
                f"{where}: recorded.{name} is {recorded[name]!r:.80}, not a {kind.__name__}"
            )
    for objective in recorded.get("objectives", ()):
        entries = objective if isinstance(objective, dict) else {}
        if not all(isinstance(entries.get(each), str) for each in ("name", "direction", "unit")):
            raise InputError(
                f"{where}: a recorded objective is {objective!r:.80}, not a table with the texts "
                "name, direction and unit"
            )


def software_versions() -> dict[str, str]:
    """Return the versions of the software that affects results."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def recorded_place(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Return the entries of ``config.toml`` on the directories that a run began with."""
    here = str(Path.cwd())
    importable = tuple(Path(each).absolute() for each in sys.path)
    found: dict[str, Any] = {CWD: here}
    if modules := [each for each in module_directories(config, importable) if each != here]:
        found[MODULES] = modules
    try:
        "".join([here, *modules]).encode()
        return found | {FROM_RUN: Path(os.path.relpath(here, folder)).as_posix()}
    except UnicodeEncodeError:
        return {}  # TOML cannot hold it
    except ValueError:  # on another drive
        return found


def places(folder: Path, recorded: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return the directories for relative paths of a run, the preferred one first.

    They are that in which the run began, the same relative to the run's folder, which may have
    been moved with it, the current one, and those of its modules.
    """
    found = [Path(recorded[CWD])] if isinstance(recorded.get(CWD), str) else []
    if isinstance(recorded.get(FROM_RUN), str):
        found.append(Path(os.path.normpath(folder.absolute() / recorded[FROM_RUN])))
    modules = recorded.get(MODULES)
    named = modules if isinstance(modules, list) else []
    return (*found, Path.cwd(), *(Path(each) for each in named if isinstance(each, str)))


def located(config: RunConfig, directories: tuple[Path, ...]) -> RunConfig:
    """Return settings whose relative paths are absolute if one of the directories has them."""
    changed: dict[str, str] = {}
    for name in _WHOLE:
        if (path := getattr(config, name)) is not None:
            changed[name] = _found(path, directories)
    for name, kinds in _AFTER_COLON.items():
        kind, colon, path = getattr(config, name).partition(":")
        if colon and kind in kinds:
            changed[name] = f"{kind}:{_found(path, directories)}"
    name = config.supernet
    if is_path(name) or any(is_path(str(each / name)) for each in directories):
        changed["supernet"] = _found(name, directories)
    return replace(config, **changed)  # type: ignore[arg-type]  # all of them are texts


def make_importable(config: RunConfig, directories: tuple[Path, ...]) -> None:
    """Put the directories of modules that the settings name on ``sys.path``."""
    found = module_directories(config, directories)
    sys.path[:0] = [each for each in found if each not in sys.path]


def module_directories(config: RunConfig, directories: tuple[Path, ...]) -> tuple[str, ...]:
    """Return the directories that hold modules that the settings name."""
    specs = [config.supernet, config.data]
    names = [spec.partition(":")[0].partition(".")[0] for spec in specs if ":" in spec]
    holding = (
        str(each)
        for each in directories
        if any((each / f"{name}.py").is_file() or (each / name).is_dir() for name in names)
    )
    return tuple(dict.fromkeys(holding))


def _found(path: str, directories: tuple[Path, ...]) -> str:
    if Path(path).expanduser().is_absolute():
        return path
    named = path.partition("#")[0]  # FILE#ema, FILE#raw
    for directory in directories:
        if (directory / path).exists() or (directory / named).exists():
            return path if directory == Path.cwd() else str(directory / path)
    return path
