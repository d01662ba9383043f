"""Groups of architectures that are evaluated together."""

from collections.abc import Iterable

from hwsearch.space import Architecture
from hwsearch.supernets.base import Supernet

TOGETHER = 16


def alike(net: Supernet, archs: Iterable[Architecture]) -> list[list[Architecture]]:
    """Group architectures by equal first blocks.

    A group is so small that its subnets fit into memory at once.
    """
    chains = {arch: _chain(net, arch) for arch in archs}
    ordered = sorted(archs, key=chains.__getitem__)
    return [ordered[at : at + TOGETHER] for at in range(0, len(ordered), TOGETHER)]


def _chain(net: Supernet, arch: Architecture) -> tuple[str, ...]:
    """Return the input and blocks of a subnet as a sort key for common prefixes."""
    try:
        blocks = net.blocks(arch)
    except Exception:  # noqa: BLE001 - the error is reported when it is built
        return ()
    spec = str(net.input_spec(arch).inputs)
    return (spec, *(f"{block.name} {block.spec}" for block in blocks or ()))
