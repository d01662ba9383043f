"""The registry of quantities: unit, direction and source of every number of an architecture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from numpy.typing import ArrayLike

from hwsearch import plugins
from hwsearch.errors import InputError

if TYPE_CHECKING:
    from hwsearch.accuracy.metric import Metric
    from hwsearch.space import Architectures
    from hwsearch.supernets.supernet import Supernet

GROUP: Final = "hwsearch.quantities"
Source = Literal["exact", "device", "task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A named number of an architecture, either computed or measured.

    Attributes:
        name: Its name in settings, tables and files, such as ``peak_memory``.
        title: Its name in text, such as ``peak memory``.
        summary: One sentence: what is counted or measured.
        direction: ``"min"`` or ``"max"``: which values are better.
        exact: Computes it: a supernet and n of its architectures -> (n,) finite numbers. None if
            it is measured.
        measured_by: ``"device"`` or ``"task"``; None if it is computed.
        predicted_by: What predicts it where it cannot be measured; empty for nothing.
        context: What decides a value besides the architecture.
        of_float32: Whether it is a number of the float32 model, also where another is shipped.
        limit: A value that none reaches, where differences of the logarithm of the distance from
            it count: see `hwsearch.objectives.Objective`.
        comparative: Words for a better value, such as ``faster``; empty for ``less NAME``.
        superlative: Words for the best value, such as ``fastest``; empty for ``best NAME``.
    """

    name: str
    title: str
    summary: str
    unit: str
    direction: Literal["max", "min"]
    exact: "Callable[[Supernet, Architectures], ArrayLike] | None" = None
    measured_by: Literal["device", "task"] | None = None
    predicted_by: str = ""
    context: str = "the supernet"
    of_float32: bool = False
    limit: float | None = None
    comparative: str = ""
    superlative: str = ""

    def __post_init__(self) -> None:
        if (self.exact is None) == (self.measured_by is None):
            raise InputError(
                f"quantity {self.name!r} needs either a function that computes it or the name of "
                "what measures it, and not both"
            )

    @property
    def source(self) -> Source:
        """Return ``exact``, or by what it is measured."""
        return self.measured_by or "exact"


@cache
def quantity_names() -> tuple[str, ...]:
    """Return the sorted names of all registered quantities; nothing is imported."""
    return tuple(plugins.names(GROUP))  # remembered: reading entry points takes milliseconds


@cache
def load_quantity(name: str) -> Quantity:
    """Return the registered quantity of a name; raise InputError if it cannot be loaded."""
    found: Any = plugins.load(GROUP, name, "quantity")
    if not isinstance(found, Quantity) or found.name != name:
        raise InputError(f"quantity {name!r} is registered, but what is there is {found!r:.80}")
    return found


@cache
def exact_quantities() -> dict[str, Quantity]:
    """Return name -> computed quantity, MACs, parameters and bytes first."""
    if not quantity_names():
        raise InputError(
            f"no quantity is registered in the entry-point group {GROUP!r}: the installation is "
            "older than the code; install hwsearch again (in a clone: pip install -e .)"
        )
    names = dict.fromkeys((MACS.name, PARAMS.name, BYTES.name, *quantity_names()))
    return {each.name: each for each in map(load_quantity, names) if each.exact is not None}


def quantity_of(name: str) -> Quantity:
    """Return the quantity of a name; one that is not registered is a task's own metric."""
    return load_quantity(name) if name in quantity_names() else _own_metric(name)


def _own_metric(name: str) -> Quantity:
    summary = "The data's own metric."
    own = replace(TOP1, name=name, title=name, summary=summary, unit="")
    return next((each for each in SCORES if each.name == name), own)


def of_metric(metric: "Metric") -> Quantity:
    """Return a task's metric as a quantity."""
    own = _own_metric(metric.name)
    limit = own.limit if metric.of_answers else None
    return replace(own, unit=metric.unit, direction=metric.direction, limit=limit)  # type: ignore[arg-type]


def search_quantities(*metrics: "Metric") -> dict[str, Quantity]:
    """Return name -> quantity for all possible objectives of a search by the metrics of a task."""
    measured = [q for q in map(load_quantity, quantity_names()) if q.source == "device"]
    scored = map(of_metric, metrics)
    return {q.name: q for q in (*scored, *measured, *exact_quantities().values())}


def main_cost(names: Sequence[str]) -> str:
    """Return the first name of a quantity that the device measures, or else the first."""
    return next((name for name in names if quantity_of(name).source == "device"), names[0])


LATENCY: Final = Quantity(
    name="latency",
    title="latency",
    summary="Undisturbed time of one inference on the device.",
    unit="ms",
    direction="min",
    measured_by="device",
    predicted_by="a latency table",
    context="the device with its settings and fingerprint, batch, input shape, precision",
    comparative="faster",
    superlative="fastest",
)
THROUGHPUT: Final = Quantity(
    name="throughput",
    title="throughput",
    summary="Samples a second on the device, at the best of the batch sizes.",
    unit="samples/s",
    direction="max",
    measured_by="device",
    context="what decides a latency, and the batch sizes",
    comparative="more throughput",
    superlative="highest throughput",
)
TOP1: Final = Quantity(
    name="top1",
    title="top-1",
    summary="Share of samples whose highest score is that of the label.",
    unit="%",
    direction="max",
    measured_by="task",
    predicted_by="a fitted predictor",
    context="weights, calibration samples, search samples, precision of the file",
)
_OF_ANSWERS = "weights, the original's outputs, search samples, precision of the file"
AGREEMENT: Final = Quantity(
    name="agreement",
    title="agreement",
    summary="Share of samples that are answered as by the original model.",
    unit="%",
    direction="max",
    measured_by="task",
    context=_OF_ANSWERS,
)
KL: Final = Quantity(
    name="kl",
    title="KL divergence",
    summary="Kullback-Leibler divergence of the class probabilities from the original model's.",
    unit="nats",
    direction="min",
    measured_by="task",
    context=_OF_ANSWERS,
    limit=-1e-3,
    comparative="nearer to the original",
    superlative="nearest to the original",
)
FIDELITY: Final = Quantity(
    name="fidelity",
    title="fidelity",
    summary="Cosine of the outputs with the original model's, or their explained variance.",
    unit="%",
    direction="max",
    measured_by="task",
    context=_OF_ANSWERS,
    limit=100.1,
)
SCORES: Final = (TOP1, AGREEMENT, KL, FIDELITY)
MACS: Final = Quantity(
    name="macs",
    title="MACs",
    summary="Multiply-accumulates of convolutions and matrix products for one sample.",
    unit="MACs",
    direction="min",
    exact=lambda net, archs: net.count_macs(archs),
)
PARAMS: Final = Quantity(
    name="params",
    title="parameters",
    summary="Learned numbers, batch statistics not among them.",
    unit="parameters",
    direction="min",
    exact=lambda net, archs: net.count_params(archs),
)
BYTES: Final = Quantity(
    name="bytes",
    title="bytes",
    summary="Bytes of the weights in float32.",
    unit="bytes",
    direction="min",
    exact=lambda net, archs: 4 * net.count_params(archs),
    of_float32=True,
)
