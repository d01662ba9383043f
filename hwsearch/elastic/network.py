"""An elastic model as the network that a search asks for subnets, costs and expected losses."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray

from hwsearch.elastic import wire
from hwsearch.elastic.analysis.liveness import removables
from hwsearch.elastic.blocks import Blocks
from hwsearch.elastic.build import Slicer, zeroed
from hwsearch.elastic.choices import ElasticSpace
from hwsearch.elastic.costs import Costs
from hwsearch.elastic.graph import Group, Structure
from hwsearch.elastic.living import LIVING
from hwsearch.elastic.path import greedy_path, uniform_cuts
from hwsearch.elastic.repair.reference import Reference
from hwsearch.elastic.repair.sequential import sequential
from hwsearch.elastic.summary import Summary, summary_of
from hwsearch.errors import EvaluationError, InputError
from hwsearch.space import Architecture, Architectures, SearchSpace
from hwsearch.supernets.interface import Card, InputSpec

_UNITS_KEPT = 4096  # masks of (group, option)
_REFERENCES_KEPT = 2  # of input sizes
_FEWEST = 4  # architectures of a path
_LEAST_LOSS = 1e-3  # share of the outputs' variance below which losses are alike


class Repairs(Protocol):
    """What an elastic model asks of the repair of its weights."""

    def weights(self, kept: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[Any]]:
        """Return the new values of initialisers whose inputs lost units."""
        ...


class ElasticNetwork:
    """A trained model as a supernet; implements `hwsearch.supernets.interface.OnnxNetwork`.

    Attributes:
        structure: The model, its groups and branches.
        elastic: The meaning of its choices.
        space: Its search space, with all choices.
        defaults: Options of choices that a search fixes unless a rule mentions them.
        orders: Group -> its units, most important first.
        losses: Group, branch or layer -> share of the outputs' variance that is lost, by number of
            kept units, (size + 1,), or without it and with it, (2,); what nothing is known of is
            absent.
        folder: What it was opened from; None for one in memory.
    """

    def __init__(
        self,
        structure: Structure,
        elastic: ElasticSpace,
        orders: Mapping[str, NDArray[np.int64]],
        spec: InputSpec,
        card: Card,
        *,
        repair: Callable[[], Repairs] | None = None,
        losses: Mapping[str, NDArray[np.float64]] | None = None,
        statistics_digest: str = "",
        folder: Path | None = None,
    ) -> None:
        """Join what `hwsearch.elastic.elastify` found.

        Args:
            structure: The model, its groups and branches.
            elastic: The meaning of its choices.
            orders: Group -> its units, most important first.
            spec: Inputs and outputs of the model.
            card: Name, licence and source of the model.
            repair: Called once, when the first subnet is built; None leaves weights as they are.
            losses: See the class; searches begin with what they suggest.
            statistics_digest: Of the statistics that order and repair follow from.
            folder: What it was opened from.
        """
        self.structure, self.elastic, self.card = structure, elastic, card
        self.space, self.defaults = elastic.space, elastic.defaults
        self.orders = {name: np.asarray(order) for name, order in orders.items()}
        self.losses, self.folder = dict(losses or {}), folder
        self.recalibrate: tuple[()] = ()
        self._spec, self._make_repair = spec, repair
        self._slicer = Slicer(structure)
        self._costs = Costs(structure, [size.macs for size in elastic.sizes])
        self._columns = {group.name: row for row, group in enumerate(structure.groups)}
        self._mask = lru_cache(maxsize=_UNITS_KEPT)(self._new_mask)
        self._references: dict[str | None, Reference] = {}
        self.digest = self._digest(statistics_digest)
        LIVING.add(self)

    def __repr__(self) -> str:
        return f"ElasticNetwork({self.card.name!r}, {len(self.space.choices)} choices)"

    @cached_property
    def repair(self) -> Repairs | None:
        """Return what repairs weights, or None; its statistics are read on the first call."""
        return None if self._make_repair is None else self._make_repair()

    @property
    def summary(self) -> Summary:
        """Return which share of the MACs is elastic, and what was left out."""
        return summary_of(self.structure)

    def input_spec(self, arch: Architecture) -> InputSpec:
        """Return inputs and outputs; the image is smaller at another resolution."""
        return self.elastic.sized(self._spec, arch)

    def blocks(self, arch: Architecture) -> None:
        """Return None: a subnet is no chain of blocks."""

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self.structure)

    @property
    def node_blocks(self) -> Mapping[str, str]:
        """Return the block of each node: see `hwsearch.elastic.blocks`."""
        return self._blocks.of_nodes

    def weighted_blocks(self, arch: Architecture) -> list[str]:
        """Return the names of the blocks of a subnet that have weights."""
        chosen = self.elastic.select(arch.space.architectures([arch]))
        return self._blocks.there(removables(self.structure), chosen.dropped[0])

    def subnet(self, arch: Architecture) -> None:
        """Raise EvaluationError: a subnet is an ONNX model and no PyTorch module."""
        raise EvaluationError(
            f"the subnet {arch.key} of {self.card.name!r} is an ONNX model and no PyTorch module; "
            "take onnx_model(arch), or hwsearch.cut(module, arch) of the module that was given"
        )

    def onnx_model(self, arch: Architecture) -> onnx.ModelProto:
        """Return the float32 model of a subnet, repaired, with a dynamic batch."""
        return wire.parsed(self.onnx_content(arch))

    def onnx_content(self, arch: Architecture) -> memoryview:
        """Return the same as the content of its file, in a third of the time."""
        kept, dropped = self.kept(arch)
        new = {} if self.repair is None else self.repair.weights(kept)
        return self._slicer.serialised(kept, dropped, new, self.elastic.shapes(arch))

    def refined(
        self, arch: Architecture, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> onnx.ModelProto:
        """Return the model of a subnet with each layer solved anew on what the subnet computes.

        Args:
            arch: The subnet.
            batches: Calibration samples, inputs by name, that nothing is scored on. What the given
                model computes for them is kept for other subnets if they have a ``digest``.
        """
        kept, dropped = self.kept(arch)
        new = {} if self.repair is None else self.repair.weights(kept)
        if kept or dropped:
            new = sequential(self.structure, kept, dropped, new, self._reference(batches))
        shapes = self.elastic.shapes(arch)
        return wire.parsed(self._slicer.serialised(kept, dropped, new, shapes))

    def _reference(self, batches: Iterable[Mapping[str, NDArray[Any]]]) -> Reference:
        digest = getattr(batches, "digest", None)
        found = self._references.pop(digest, None) or Reference(self.structure.graph, batches)
        if digest is not None:
            self._references[digest] = found
        while len(self._references) > _REFERENCES_KEPT:
            del self._references[next(iter(self._references))]
        return found

    def reference_models(
        self, arch: Architecture
    ) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
        """Return two models of equal outputs: the subnet before repair, and the zeroed model.

        The second one is the given model with zeros in the weights that read what is removed.
        They would differ, and None is returned, where a group that is not exact loses units.
        """
        kept, dropped = self.kept(arch)
        if any(group.name in kept and not group.exact for group in self.structure.groups):
            return None
        shapes = self.elastic.shapes(arch)
        cut = wire.parsed(self._slicer.serialised(kept, dropped, shapes=shapes))
        return cut, zeroed(self.structure, kept, dropped, shapes)

    def named_weights(self, model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
        """Return the learned numbers of a subnet's model under their names in the given model."""
        origins, found = self.structure.graph.origins, {}
        for tensor in model.graph.initializer:
            array, origin = onnx.numpy_helper.to_array(tensor), origins.get(tensor.name)
            if array.dtype.kind != "f":
                continue
            if origin is not None and len(origin.permutation) == array.ndim:
                array = array.transpose(np.argsort(origin.permutation))
            name = "" if origin is None else origin.name
            found[tensor.name if not name or name in found else name] = array
        return found

    def macs(self, archs: Architectures) -> NDArray[np.int64]:
        """Return the multiply-accumulates of n architectures for one sample: (n,)."""
        return self._costs.macs(self.elastic.select(archs))

    def params(self, archs: Architectures) -> NDArray[np.int64]:
        """Return the floating-point numbers in the files of n architectures: (n,)."""
        return self._costs.params(self.elastic.select(archs))

    def kept(self, arch: Architecture) -> tuple[dict[str, NDArray[np.bool_]], set[str]]:
        """Return the units of groups that lose some, and the parts that are left out.

        Groups of which nothing is left are not among them. Parts are branches and layers.
        """
        chosen = self.elastic.select(arch.space.architectures([arch]))
        dropped = {
            part.name
            for part, out in zip(removables(self.structure), chosen.dropped[0], strict=True)
            if out
        }
        live = self._slicer.live_weights(dropped)
        kept = {}
        for group, count in zip(self.structure.groups, chosen.units[0].tolist(), strict=True):
            if count < group.size and any(slot.weight in live for slot in group.slots):
                kept[group.name] = self._mask(group.name, count)
        return kept, dropped

    @property
    def expected_loss(self) -> Callable[[Architectures], NDArray[np.float64]] | None:
        """Return what tells the losses of n architectures without a run, (n,); None if unknown.

        They are shares of the variance of the outputs, above 0. Losses of groups and parts are
        added.
        """
        return self._expected_loss if self.losses else None

    def path(self, space: SearchSpace) -> Architectures | None:
        """Return nested architectures that are worth evaluating, from the largest down.

        Each is the one before without what loses least for the MACs that it saves; choices that
        nothing is known of stay as they are. None is returned where that is all of them. The path
        ends before more than the variance of the outputs is lost, as a constant would lose it.

        Args:
            space: The whole search space or a part of it.
        """
        if not self.losses:
            return None
        known = {
            meaning.choice.name
            for meaning in self.elastic.meanings
            if meaning.targets and self.losses.keys() >= set(meaning.targets)
        }
        return self._useful(greedy_path(space, known, self._expected_loss, self.macs))

    def uniform(self, space: SearchSpace) -> Architectures:
        """Return architectures whose widths all keep about the same share, the largest first.

        They end where a path does.

        Args:
            space: The whole search space or a part of it.
        """
        widths = {m.choice.name for m in self.elastic.meanings if m.decides == "units"}
        return self._useful(uniform_cuts(space, widths))

    def _useful(self, archs: Architectures) -> Architectures:
        """Return the first of architectures, as long as they lose no more than a constant."""
        useful = np.flatnonzero(self._expected_loss(archs) <= 1.0)
        return archs[: max(_FEWEST, useful[-1] + 1 if len(useful) else 0)]

    def _expected_loss(self, archs: Architectures) -> NDArray[np.float64]:
        chosen, found = self.elastic.select(archs), np.full(len(archs), _LEAST_LOSS)
        for column, group in enumerate(self.structure.groups):
            if group.name in self.losses:
                found += self.losses[group.name][chosen.units[:, column]]
        for column, part in enumerate(removables(self.structure)):
            if part.name in self.losses:
                found += self.losses[part.name][1 - chosen.dropped[:, column]]
        return found

    def _new_mask(self, name: str, count: int) -> NDArray[np.bool_]:
        group = self.structure.groups[self._columns[name]]
        mask = kept_units(group, self.orders[name], count)
        mask.setflags(write=False)
        return mask

    def _digest(self, statistics: str) -> str:
        found = hashlib.sha256(f"{self.structure.graph.digest} {statistics}".encode())
        for name in sorted(self.orders):
            found.update(name.encode() + np.ascontiguousarray(self.orders[name], "<i8").tobytes())
        return found.hexdigest()


def kept_units(group: Group, order: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Return which units a group keeps: the first ones of an order, the same share of every part.

    Raises:
        InputError: The parts cannot keep equal shares.
    """
    mask = np.zeros(group.size, np.bool_)
    parts = group.parts if len(group.parts) else np.zeros(group.size, np.int64)
    for part in np.unique(parts):
        own = order[parts[order] == part]
        share, rest = divmod(count * len(own), group.size)
        if rest or not share:
            raise InputError(
                f"group {group.name!r} cannot keep {count} of its {group.size} units: its parts "
                "keep equal shares"
            )
        mask[own[:share]] = True
    return mask
