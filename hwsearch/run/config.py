"""Everything needed to repeat a run, as ``config.toml`` keeps it."""

import platform
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import tomli_w

from hwsearch.errors import InputError, unknown
from hwsearch.files import MAX_BYTES, decoded, read_bounded, write_atomic
from hwsearch.optimizer import tactic_names
from hwsearch.optimizer.stopping import Stopping, check_positive

FILE, TRIALS, REPORT = "config.toml", "trials.sqlite", "report.html"
PRIORS = ("on", "off")
OBSOLETE = ("race",)  # settings of former versions; they are ignored
# What settings resolved to; see `hwsearch.run.setup.Setup.recorded`.
RECORDED: dict[str, type] = {
    "space": str, "full_space": str, "weights": str, "data": dict, "device": dict,
    "objectives": list, "latency_table": dict, "predictor": dict, "warm_start": dict,
    "versions": dict, "warnings": list,
}  # fmt: skip
_MOST_DOTS = 5000
RECORDED_PACKAGES = (
    "hwsearch",
    "torch",
    "onnx",
    "onnxruntime",
    "numpy",
    "pymoo",
    "scikit-learn",
    "pillow",
    "torchvision",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """The settings of a search.

    Attributes:
        supernet: A registered or imported name, or ``MODULE:FUNCTION``.
        checkpoint: A file or ``random:SEED``; where it is not set, the weights that ship.
        device: Where latency is measured, such as ``ort-cpu:threads=1``.
        data: What subnets are scored by: ``bundled``, ``none`` (accuracy is predicted),
            ``cifar10:FOLDER``, ``imagefolder:FOLDER``, ``npz:FILE`` or ``MODULE:FUNCTION``.
        objectives: Out of the data's metric, ``latency`` and the computed quantities, such as
            ``macs`` and ``peak_memory``; with none named, the metric and ``latency``.
        constraints: On objectives, such as ``latency <= 12``.
        budget: How many architectures are evaluated, reused ones among them.
        minutes: After how many the search proposes nothing more; where it is not set, never.
        stop_gain: Percent of the hypervolume; the search ends when its next 50 evaluations are
            expected to add less. Where it is not set, it goes on.
        tactic: How architectures are proposed.
        seed: Decides every random draw of the search.
        batch: Architectures proposed at a time; where it is not set, as many as suit the tactic.
        freeze: Rules that leave choices one option, such as ``stage1.*=max``.
        only: Rules that leave choices some options, such as ``resolution in 160,192``.
        prior: ``on`` lets accuracy be predicted by what ships for the supernet, to choose;
            ``off`` does without.
        warm_start: A run whose measurements are reused, or a CSV of evidence.
    """

    supernet: str = "cifar10-resnet"
    checkpoint: str | None = None
    device: str = "ort-cpu:threads=1"
    data: str = "bundled"
    objectives: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    budget: int = 40
    minutes: float | None = None
    stop_gain: float | None = None
    tactic: str = "hwsearch"
    seed: int = 0
    batch: int | None = None
    freeze: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    prior: str = "on"
    warm_start: str | None = None

    def __post_init__(self) -> None:
        for name in ("supernet", "device", "data"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name} is {getattr(self, name)!r}; give text")
        for name in ("objectives", "constraints", "freeze", "only"):
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(each, str) for each in texts):
                raise InputError(f"{name} is {texts!r}; give a list of texts")
        for name in ("budget", "batch"):
            value: object = getattr(self, name)
            if value is None and name == "batch":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} is {value!r}; give a whole number from 1 up")
        for name in ("minutes", "stop_gain"):
            check_positive(name, getattr(self, name))
        seed: object = self.seed
        if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
            raise InputError(f"seed is {seed!r}; give a whole number from 0 up")
        if self.tactic not in (known := tactic_names()):
            raise unknown("tactic", self.tactic, known)
        if self.prior not in PRIORS:
            raise unknown("prior", self.prior, PRIORS)
        for name, wanted in (
            ("checkpoint", "a file or random:SEED"),
            ("warm_start", "a run or a CSV file"),
        ):
            if not isinstance(getattr(self, name), str | None):
                raise InputError(f"{name} is {getattr(self, name)!r}; give {wanted}")

    @property
    def stopping(self) -> Stopping:
        """When the search ends."""
        return Stopping(budget=self.budget, minutes=self.minutes, stop_gain=self.stop_gain)

    def with_budget(self, budget: int | None) -> "RunConfig":
        """Return these settings with another budget, or the same for None."""
        return self if budget is None else replace(self, budget=budget)

    def with_limits(
        self, budget: int | None, minutes: float | None, stop_gain: float | None
    ) -> "RunConfig":
        """Return these settings with other limits; None leaves one as it is."""
        limits = {"budget": budget, "minutes": minutes, "stop_gain": stop_gain}
        given: dict[str, Any] = {k: v for k, v in limits.items() if v is not None}
        return replace(self, **given) if given else self


def write_config(folder: Path, config: RunConfig, recorded: Mapping[str, Any]) -> None:
    """Write ``config.toml``: the settings, and what they resolved to when the run began."""
    search = {name: value for name, value in asdict(config).items() if value is not None}
    content = {"search": {k: list(v) if isinstance(v, tuple) else v for k, v in search.items()}}
    write_atomic(folder / FILE, tomli_w.dumps({**content, "recorded": dict(recorded)}))


def read_config(folder: Path) -> tuple[RunConfig, dict[str, Any]]:
    """Read ``config.toml``.

    Returns:
        The settings, and what they resolved to.

    Raises:
        InputError: The folder holds no run, or its configuration cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(
            f"{str(folder)!r} is no run: it has no {FILE}. Start one with "
            f"'hwsearch search --out {folder}'"
        )
    try:
        content = parsed_toml(decoded(read_bounded(path, MAX_BYTES)))
        search, recorded = dict(content["search"]), dict(content["recorded"])
        search = {name: value for name, value in search.items() if name not in OBSOLETE}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    _check_recorded(path, recorded)
    known = {field.name for field in fields(RunConfig)}
    for name in search:
        if name not in known:
            raise unknown(f"setting in {path}", name, known)
    search = {k: tuple(v) if isinstance(v, list) else v for k, v in search.items()}
    return RunConfig(**search), recorded


def parsed_toml(text: str) -> dict[str, Any]:
    """Read TOML that a stranger may have written.

    Raises:
        ValueError: It is none, is nested too deeply, or has a key of too many parts.
    """
    # A key of n parts takes n x n steps and bytes.
    if any(line.count(".") > _MOST_DOTS for line in text.splitlines()):
        raise ValueError(f"a line has more than {_MOST_DOTS:,} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_recorded(path: Path, recorded: Mapping[str, Any]) -> None:
    """Refuse what settings cannot have resolved to.

    Raises:
        InputError: An entry is of another type, or an objective lacks something.
    """
    where = f"{str(path)!r} is damaged"
    for name, kind in RECORDED.items():
        if not isinstance(recorded.get(name, kind()), kind):
            raise InputError(
                f"{where}: recorded.{name} is {recorded[name]!r:.80}, not a {kind.__name__}"
            )
    for objective in recorded.get("objectives", ()):
        if not isinstance(objective, dict):
            raise InputError(f"{where}: a recorded objective is {objective!r:.80}, not a table")
        for field in ("name", "direction", "unit"):
            if not isinstance(objective.get(field), str):
                raise InputError(f"{where}: a recorded objective has no text {field!r}")


def software_versions() -> dict[str, str]:
    """Versions of what decides the numbers of a run."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
