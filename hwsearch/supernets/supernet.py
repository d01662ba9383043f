"""A loaded supernet: a family's network restricted by rules, with its exact costs."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.blocks import Block
from hwsearch.chains import BlocksOf
from hwsearch.errors import EvaluationError, HwsearchError, InputError, unknown
from hwsearch.precision import Condition, Per, PrecisionSpace, conditions, in_precisions
from hwsearch.quantities import exact_quantities
from hwsearch.restriction import one_or_several, restricted, widened
from hwsearch.space import Architecture, Architectures, SearchSpace
from hwsearch.supernets.exact_costs import ExactCosts
from hwsearch.supernets.interface import (
    InputSpec,
    Network,
    OnnxNetwork,
    of_modules,
    writes_onnx,
)
from hwsearch.supernets.weight_sources import is_random

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

_CHAINS_KEPT = 512
_SPREAD = 10  # structures that are evaluated first, with the precisions in turns


class Supernet:
    """A loaded supernet: a family's network, restricted by rules, with its exact costs.

    Attributes:
        name: The name or ``module:function`` that it was loaded by.
        checkpoint: The given checkpoint, or None for the shipped one.
        space: The space to search: the full space restricted by rules and defaults.
        full_space: Every choice with all of its options.
        precision: The choices of precision in it, or None.
        freeze: Its rules ``GLOB=VALUE``.
        only: Its rules ``GLOB in V1,V2``.
        digest: SHA-256 of its weights.
        costs: Its MACs, parameters and block indexes.
        caches: What other modules keep of it, by their own names. Restrictions share it.
    """

    def __init__(
        self,
        name: str,
        network: Network | OnnxNetwork,
        checkpoint: str | None = None,
        *,
        precision: PrecisionSpace | None = None,
        freeze: Iterable[str] = (),
        only: Iterable[str] = (),
    ) -> None:
        self.name = name
        self.checkpoint = checkpoint
        self.network = network
        self.freeze, self.only = one_or_several(freeze), one_or_several(only)
        self.precision = precision
        self.full_space = network.space if precision is None else precision.space
        defaults = getattr(network, "defaults", {})
        self.space = restricted(self.full_space, self.freeze, self.only, defaults)
        self.card = network.card
        self.digest = network.digest
        self._writer = network if writes_onnx(network) else None
        self._modules = network if of_modules(network) else None
        self.recalibrate = () if self._modules is None else self._modules.recalibrate
        self.caches: dict[str, Any] = {}
        chain_of: BlocksOf = _no_chain if self._modules is None else self._modules.blocks
        self._chain = lru_cache(maxsize=_CHAINS_KEPT)(chain_of)
        self.costs = ExactCosts(self._blocks, self._count)

    def __repr__(self) -> str:
        return f"Supernet({self.name!r}, {self.space.size:.3g} architectures)"

    @property
    def writes_onnx(self) -> bool:
        """Return whether its subnets are ONNX models from the start, and no PyTorch modules."""
        return self._writer is not None

    @property
    def untrained(self) -> bool:
        """Return whether its weights are random, so that accuracies mean nothing."""
        return is_random(self.checkpoint)

    @property
    def family(self) -> str:
        """Return the registered name of its family, also for an imported checkpoint."""
        return str(self.card.facts.get("family", self.card.name))

    @property
    def weights(self) -> str:
        """Return an identifier of the weights: ``random:SEED``, or 16 digits of their digest."""
        return str(self.checkpoint) if self.untrained else self.digest[:16]

    def restrict(self, freeze: Iterable[str] = (), only: Iterable[str] = ()) -> "Supernet":
        """Return the same supernet with a part of its space.

        Args:
            freeze: Further rules such as ``"stage1.*=max"``.
            only: Further rules such as ``"resolution in 160,192,224"``; they apply before all of
                ``freeze``. See `hwsearch.restriction`.

        Raises:
            InputError: A rule is malformed, matches no choice, names a value that is no option,
                or leaves nothing.
        """
        return self.with_rules(
            (*self.freeze, *one_or_several(freeze)), (*self.only, *one_or_several(only))
        )

    def with_rules(self, freeze: tuple[str, ...], only: tuple[str, ...]) -> "Supernet":
        """Return the same supernet restricted by these rules alone."""
        if (freeze, only) == (self.freeze, self.only):
            return self
        return self._changed(self.precision, freeze, only)

    def with_precision(self, *options: str, per: Per = "network") -> "Supernet":
        """Return the same supernet with precision among its choices.

        Its space has one more choice ``precision``, or one more for every block that has weights,
        ``precision.BLOCK``. MACs and parameters do not depend on them.

        Args:
            options: Two or more of `hwsearch.precision.OPTIONS`, such as ``"fp32", "int8"``.
            per: ``"network"`` or ``"block"``.

        Raises:
            InputError: An option is unknown, or the parts of the subnets are not known as blocks.
        """
        if per not in ("network", "block"):
            raise unknown("scope of a precision", per, ("network", "block"))
        blocks = self._precision_blocks() if per == "block" else None
        return self._changed(
            PrecisionSpace(self.network.space, options, blocks), self.freeze, self.only
        )

    def _precision_blocks(self) -> dict[str, Condition | None]:
        """Return the blocks with weights, and where each is there."""
        if (given := self._blocks_with_weights) is None:
            raise InputError(
                f"subnets of {self.name!r} are no chains of blocks, so that blocks have no "
                "precision of their own; choose one for the whole network: per='network'"
            )
        return conditions(self.network.space, given)

    @property
    def _blocks_with_weights(self) -> Callable[[Architecture], list[str]] | None:
        """Return what names the blocks of a subnet; None where they are not known."""
        if self._modules is None:
            return getattr(self._writer, "weighted_blocks", None)
        known = self._chain(self.network.space.largest()[0]) is not None
        return self._weighted_blocks if known else None

    def _weighted_blocks(self, arch: Architecture) -> list[str]:
        return [block.name for block in self._chain(arch) or () if block.params]

    def precisions(self, arch: Architecture) -> dict[str, str]:
        """Return block -> precision, ``{"": precision}`` of the whole network; else empty."""
        return {} if self.precision is None else self.precision.of(arch)

    def block_precisions(self, arch: Architecture, precision: str) -> dict[str, str]:
        """Return block -> precision, also where all of a file have one; empty without blocks.

        Args:
            arch: An architecture of this space.
            precision: That of the file.
        """
        chosen = self.precisions(arch)
        if self.precision is not None and self.precision.blocks:
            return chosen
        names = self._blocks_with_weights
        return {} if names is None else dict.fromkeys(names(self.structure(arch)), precision)

    def _changed(
        self, precision: PrecisionSpace | None, freeze: tuple[str, ...], only: tuple[str, ...]
    ) -> "Supernet":
        net = Supernet(
            self.name,
            self.network,
            self.checkpoint,
            precision=precision,
            freeze=freeze,
            only=only,
        )
        net.costs, net.caches, net._chain = self.costs, self.caches, self._chain
        return net

    def subnet(self, arch: Architecture) -> "nn.Module":
        """Return the standalone network of an architecture, before its recalibration.

        Raises:
            InputError: The architecture belongs to another space, or subnets are no modules.
        """
        own = self.structure(arch)
        if self._modules is None:
            raise InputError(
                f"subnets of {self.name!r} are ONNX models and no PyTorch modules: "
                "hwsearch.to_onnx(net, arch) returns one, and where the given model was a module, "
                "hwsearch.cut(module, arch) returns that module with the subnet's weights"
            )
        return self._modules.subnet(own).eval()

    def tensors(self, arch: Architecture) -> "Mapping[str, Tensor] | None":
        """Return a subnet's parameters and buffers, maybe views of the supernet's, or None."""
        given: Callable[[Architecture], Mapping[str, Tensor]] | None = getattr(
            self.network, "tensors", None
        )
        return None if given is None else given(self.structure(arch))

    def onnx_model(self, arch: Architecture) -> "onnx.ModelProto | None":
        """Return the model that the network itself writes of a subnet, or None; see `to_onnx`."""
        own = self.structure(arch)
        return None if self._writer is None else self._writer.onnx_model(own)

    def reference_models(
        self, arch: Architecture
    ) -> "tuple[onnx.ModelProto, onnx.ModelProto] | None":
        """Return a subnet before repair, and the given model with zeros, or None.

        They have to agree: see `hwsearch.supernets.interface.OnnxNetwork`.
        """
        own, given = self.structure(arch), getattr(self._writer, "reference_models", None)
        return None if given is None else given(own)

    def named_weights(self, model: "onnx.ModelProto") -> "Mapping[str, NDArray[Any]] | None":
        """Return the learned numbers of a model under the given model's names, or None."""
        given = getattr(self._writer, "named_weights", None)
        return None if given is None else given(model)

    @property
    def refines(self) -> bool:
        """Return whether `refined_model` gives subnets better weights."""
        return hasattr(self._writer, "refined")

    def refined_model(
        self, arch: Architecture, batches: Iterable[Mapping[str, NDArray[Any]]]
    ) -> "onnx.ModelProto":
        """Return the model of a subnet with weights refined on samples: inputs by name."""
        own, given = self.structure(arch), getattr(self._writer, "refined", None)
        if given is None:
            raise InputError(f"{self.name!r} does not refine the weights of its subnets")
        return given(own, batches)  # type: ignore[no-any-return]  # optional

    @property
    def expected_loss(self) -> "Callable[[Architectures], NDArray[np.float64]] | None":
        """Return what tells without a run how much n architectures lose, (n,), or None.

        See `hwsearch.supernets.interface.OnnxNetwork`.
        """
        given = getattr(self._writer, "expected_loss", None)
        return None if given is None else lambda archs: given(self._all_full(archs))

    def path(self) -> Architectures | None:
        """Return structures of the space that are worth evaluating first, or None."""
        given = getattr(self._writer, "path", None)
        return None if given is None else given(self.structures)

    def start(self, seed: int = 0) -> tuple[Architectures, ...]:
        """Return batches of architectures that are worth evaluating first, each from the largest.

        They are `path` and `uniform`, where they are known. Where precision is chosen, each has
        one precision throughout, and of structures without a path some of every size are taken.
        """
        path, cuts = self.path(), self.uniform()
        found = [] if path is None else [path] if cuts is None else [path, cuts]
        if self.precision is None:
            return tuple(found)
        found = found or [self.structures.sample_spread(_SPREAD, seed)[::-1]]
        return tuple(self.precision.throughout(each, self.space) for each in found)

    @property
    def structures(self) -> SearchSpace:
        """Return the space to search without its choices of precision."""
        if self.precision is None:
            return self.space
        return self.precision.all_structures(self.space.smallest()).space

    def uniform(self) -> Architectures | None:
        """Return uniform cuts of the largest structure, from the largest down, or None."""
        given = getattr(self._writer, "uniform", None)
        return None if given is None else given(self.structures)

    @property
    def structures_digest(self) -> str:
        """Return the digest of all structures, which latency tables are made for."""
        return self.network.space.digest

    def input_spec(self, arch: Architecture) -> InputSpec:
        """Return names, shapes and preprocessing of that subnet's inputs."""
        return self.network.input_spec(self.structure(arch))

    def blocks(self, arch: Architecture) -> list[Block] | None:
        """Return the subnet as a chain of blocks, or None if it is none; cached."""
        chain = self._chain(self.structure(arch))
        return None if chain is None else list(chain)

    def timed_blocks(self, arch: Architecture) -> list[Block] | None:
        """Return the chain of `blocks` as it is timed, or None.

        Blocks have their precision, and boundaries stand between those of unlike activations:
        see `hwsearch.precision.in_precisions`. Without choices of precision it is `blocks`.
        """
        chain = self.blocks(arch)
        return None if chain is None else in_precisions(chain, self.precisions(arch))

    def exact(self, quantity: str, archs: Architectures) -> NDArray[Any]:
        """Return an exact quantity of n architectures for one sample: (n,).

        ``quantity`` is a computed one of `hwsearch.quantities`, such as ``"macs"``, ``"params"``,
        ``"bytes"``, ``"peak_memory"`` or ``"weight_traffic"``.

        Raises:
            InputError: No such quantity is registered.
            EvaluationError: The family cannot build one of the architectures.
        """
        found = exact_quantities().get(quantity)
        if found is None or found.exact is None:
            raise unknown("exact quantity", quantity, exact_quantities())
        self._check_own(archs.space, lambda: archs[0].key if len(archs) else "of an empty batch")
        return np.asarray(found.exact(self, archs))

    def count_macs(self, archs: Architectures) -> NDArray[np.int64]:
        """Return the multiply-accumulates of n architectures for one sample: (n,)."""
        if self._writer is not None:
            return np.asarray(self._writer.macs(self._all_full(archs)), np.int64)
        return self.costs.of(self.structures_of(archs), 0)

    def count_params(self, archs: Architectures) -> NDArray[np.int64]:
        """Return the numbers of learned parameters of n architectures: (n,)."""
        if self._writer is not None:
            return np.asarray(self._writer.params(self._all_full(archs)), np.int64)
        return self.costs.of(self.structures_of(archs), 1)

    def _blocks(self, arch: Architecture) -> list[Block] | None:
        return None if self._modules is None else self._modules.blocks(self._full(arch))

    def _count(self, arch: Architecture) -> tuple[int, int]:
        try:
            blocks = self._blocks(arch)
            if blocks is None and self._modules is not None:
                # It loads PyTorch, which elastic models are searched without.
                from hwsearch.supernets.module_costs import module_costs

                full = self._full(arch)
                inputs = self.network.input_spec(full).inputs
                return module_costs(self._modules.subnet(full).eval(), inputs)
            return sum(b.macs for b in blocks or ()), sum(b.params for b in blocks or ())
        except HwsearchError:
            raise
        except Exception as error:
            # A third-party family may fail for some architectures.
            raise EvaluationError(
                f"the costs of {arch.key} cannot be computed: {type(error).__name__}: {error}"
            ) from error

    def structure(self, arch: Architecture) -> Architecture:
        """Return an architecture without its precision, in the family's own space.

        Raises:
            InputError: The architecture belongs to another space.
        """
        self._check_own(arch.space, lambda: arch.key)
        return self._full(arch)

    def _check_own(self, space: SearchSpace, key: Callable[[], str]) -> None:
        own = (self.full_space, self.space, self.network.space)
        if not any(space is each for each in own) and space not in own:
            raise InputError(
                f"architecture {key()} belongs to another search space than {self.name!r}; "
                "build it with net.space.architectures(...)"
            )

    def _full(self, arch: Architecture) -> Architecture:
        if arch.space is self.network.space:
            return arch
        if self.precision is not None:
            return self.precision.structure(arch)
        return Architecture(self.network.space, arch.mapping)

    def structures_of(self, archs: Architectures) -> Architectures:
        """Return n architectures without their precision, in a part of the family's space."""
        return archs if self.precision is None else self.precision.all_structures(archs)

    def _all_full(self, archs: Architectures) -> Architectures:
        """Return n architectures without their precision in the family's own space."""
        own = self.structures_of(archs)
        return own if own.space is self.network.space else widened(own, self.network.space)


def _no_chain(_: Architecture) -> None:
    return None
