"""Which architectures to evaluate together."""

from collections.abc import Iterable

from hwsearch.space import Architecture
from hwsearch.supernets.base import Supernet

TOGETHER = 16


def alike(net: Supernet, archs: Iterable[Architecture]) -> list[list[Architecture]]:
    """Put architectures into groups to be evaluated together: those that begin alike.

    A group holds so few that their subnets fit into memory side by side.
    """
    chains = {arch: _chain(net, arch) for arch in archs}
    ordered = sorted(archs, key=chains.__getitem__)
    return [ordered[at : at + TOGETHER] for at in range(0, len(ordered), TOGETHER)]


def _chain(net: Supernet, arch: Architecture) -> tuple[str, ...]:
    """Write the blocks of a subnet down, so that it can be told who begins alike."""
    try:
        blocks = net.blocks(arch)
    except Exception:  # noqa: BLE001 - what is wrong with it is said when it is built
        return ()
    spec = str(net.input_spec(arch).inputs)
    return (spec, *(f"{block.name} {block.spec}" for block in blocks or ()))
