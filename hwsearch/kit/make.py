"""`make_kit`: the kit of a supernet, with the subnets from which latency is predicted."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from hwsearch.chains import ChainIndex
from hwsearch.devices.base import MeasureSettings
from hwsearch.errors import InputError
from hwsearch.kit.build import KitSubnet, empty_manifest, write_kit
from hwsearch.kit.manifest import TABLE, Manifest
from hwsearch.kit.table_latency import FEWEST
from hwsearch.models.export import to_onnx
from hwsearch.prediction.subnet_design import choose_subnets, covering_subnets
from hwsearch.space import Architectures
from hwsearch.supernets.checkpoints import RANDOM
from hwsearch.supernets.supernet import Supernet
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
        net: A supernet, or the name of one; its weights do not get into the kit.
        out: The file; it is replaced.
        subnets: Number of subnets to measure, at least 8.
        freeze: Choices restricted to one option; see `Supernet.restrict`.
        only: Choices restricted to some options.
        settings: Precision of the measurement; by default ±1.5%.
        built: Called with the number of every written model, from 1.

    Raises:
        InputError: An argument cannot be used; nothing has been written.
    """
    if isinstance(net, str):
        net = load_supernet(net, f"{RANDOM}0" if net in supernet_names() else None)
    part = net.restrict(freeze, only)
    archs = choose(part, subnets)

    def kit_subnets() -> Iterator[KitSubnet]:
        for number, arch in enumerate(archs, start=1):
            yield KitSubnet(arch=arch, model=to_onnx(part, arch))
            if built is not None:
                built(number)

    empty = empty_manifest(part, TABLE, settings or MeasureSettings())
    return write_kit(part, kit_subnets(), Path(out), empty)


def choose(net: Supernet, n: int) -> Architectures:
    """Return n subnets from which the latency of all others is predicted.

    Some hold every block spec, twice if n allows; the others are spread evenly over the size.
    """
    if not FEWEST <= n <= net.space.size:
        raise InputError(
            f"subnets {n} is not from {FEWEST}, the fewest to predict from, to the "
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
