"""From a supernet's name to its kit: which subnets it measures."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hwsearch.chains import ChainIndex
from hwsearch.devices.protocol import MeasureSettings
from hwsearch.errors import InputError
from hwsearch.kit.build import build_kit
from hwsearch.kit.manifest import Manifest
from hwsearch.kit.table_latency import FEWEST
from hwsearch.prediction.subnet_design import choose_subnets, covering_subnets
from hwsearch.space import Architectures
from hwsearch.supernets.base import RANDOM, Supernet
from hwsearch.supernets.zoo import load_supernet, supernet_names


def make_kit(
    net: Supernet | str,
    out: str | Path = "kit.pyz",
    *,
    subnets: int = 40,
    freeze: Sequence[str] = (),
    only: Sequence[str] = (),
    settings: MeasureSettings | None = None,
    built: Callable[[int], None] | None = None,
) -> Manifest:
    """Make one file that measures subnets where there is Python, numpy and a runtime.

    Args:
        net: A loaded supernet, or the name of one; its weights do not get into the kit.
        out: The file; it is replaced.
        subnets: How many it measures: from 8 up.
        freeze: Choices left one option; see `Supernet.restrict`.
        only: Choices left some options.
        settings: How precisely it measures; the default asks for ±1.5%.
        built: Told of every model that is written, by its number from 1.

    Returns:
        What the kit holds.

    Raises:
        InputError: Something given cannot be used; nothing has been written.
    """
    loaded = _without_weights(net) if isinstance(net, str) else net
    part = loaded.restrict(freeze, only)
    archs = choose(part, subnets)
    return build_kit(part, archs, Path(out), settings or MeasureSettings(), built)


def choose(net: Supernet, n: int) -> Architectures:
    """Choose the subnets that say most about the latency of all others.

    A part of them holds every block spec, twice where they are enough; the others are spread
    evenly over the size.

    Raises:
        InputError: There are fewer, or nothing can be predicted from so few.
    """
    if not FEWEST <= n <= net.space.size:
        raise InputError(
            f"subnets {n} is not from {FEWEST}, below which nothing can be predicted, to the "
            f"{net.space.size:.3g} architectures of {net.name}"
        )
    space = net.space
    if net.blocks(space.smallest()[0]) is None:
        return choose_subnets(space, n, partial(net.exact, "bytes"), seed=0)
    index = ChainIndex(space, net.blocks)
    covering = covering_subnets(index, index.specs, repeats=2, seed=0)
    if len(covering) > n // 2:
        covering = covering_subnets(index, index.specs, repeats=1, seed=0)[:n]
    left = n - len(covering)
    if not left:
        return covering
    spread = choose_subnets(space, left, partial(net.exact, "macs"), seed=0, exclude=covering)
    return Architectures.concatenate([covering, spread])


def _without_weights(name: str) -> Supernet:
    return load_supernet(name, f"{RANDOM}0" if name in supernet_names() else None)
