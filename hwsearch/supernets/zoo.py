"""Supernets by name: registered families, imported checkpoints, ``module:function``."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from hwsearch import plugins
from hwsearch.errors import InputError, unknown
from hwsearch.supernets.imported import imported_names, load_imported
from hwsearch.supernets.interface import Family, Network, OnnxNetwork, writes_onnx
from hwsearch.supernets.state_fit import StateFit, StateMismatchError
from hwsearch.supernets.supernet import Supernet

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)
GROUP = "hwsearch.supernets"
OWED = ("space", "card", "digest", "recalibrate", "subnet", "input_spec", "blocks")
OWED_WITH_ONNX = ("space", "card", "digest", "input_spec", "onnx_model", "macs", "params")


class NoSupernetError(InputError):
    """What a function returned, ``found``, is no supernet."""

    def __init__(self, message: str, found: object) -> None:
        super().__init__(message)
        self.found = found


def supernet_names() -> list[str]:
    """Return the names of all registered families."""
    return plugins.names(GROUP)


def load_family(name: str) -> Family:
    """Return a registered family; raise InputError for an unknown name."""
    family: Family = plugins.load(GROUP, name, "supernet")
    return family


def load_supernet(name: str, checkpoint: str | None = None) -> Supernet:
    """Load a supernet.

    Args:
        name: A registered name (see ``hwsearch supernets``), the name of an imported checkpoint,
            or ``module:function`` of a function that takes the checkpoint and returns the network.
        checkpoint: A file, or ``"random:SEED"`` for seeded random weights; None means the
            shipped or the imported one.

    Raises:
        InputError: The name is unknown, the checkpoint does not fit (the text says which family
            it looks like), or a function's result breaks the contract of a supernet.
    """
    network = _network(name, checkpoint)
    if lacking := lacking_in(network):
        kind = "OnnxNetwork" if writes_onnx(network) else "Network"
        raise NoSupernetError(
            f"supernet {name!r} lacks {', '.join(lacking)}; "
            f"hwsearch.supernets.interface.{kind} says what a supernet owes",
            network,
        )
    logger.info("loaded supernet %s with weights %s", name, network.digest)
    return Supernet(name, network, checkpoint)


def lacking_in(network: object) -> list[str]:
    """Return the names of what a network owes and does not have."""
    owed = OWED_WITH_ONNX if writes_onnx(network) else OWED
    return [name for name in owed if not hasattr(network, name)]


def recognise(state: Mapping[str, "Tensor"]) -> str:
    """Return a state dict's family, by keys and shapes; the InputError names the closest one."""
    fits = _fits(state)
    for name, fit in fits.items():
        if fit.exact:
            return name
    name = max(fits, key=lambda each: fits[each].share)
    closest = f"closest is {name!r} ({fits[name]})" if fits[name].share else "none comes close"
    raise InputError(
        f"this checkpoint is of none of the supernets {', '.join(fits)}: {closest}. "
        "Name its family, or bring your own with MODULE:FUNCTION"
    )


def _network(name: str, checkpoint: str | None) -> Network | OnnxNetwork:
    try:
        if ":" in name:
            found: Network | OnnxNetwork = plugins.import_function(name, "supernet")(checkpoint)
            return found
        if name in imported_names():
            if checkpoint is not None:
                raise InputError(
                    f"supernet {name!r} is an imported checkpoint: it takes no other one "
                    f"({checkpoint!r}); name the family instead, or leave the checkpoint out"
                )
            family, weights, card = load_imported(name)
            network = load_family(family).load(str(weights))
            network.card = card
            return network
        if name not in supernet_names():
            raise unknown("supernet", name, [*supernet_names(), *imported_names()])
        return load_family(name).load(checkpoint)
    except StateMismatchError as error:
        fitting = [family for family, fit in _fits(error.state).items() if fit.exact]
        if fitting:
            raise InputError(f"{error} It looks like {fitting[0]!r}.") from error
        raise


def _fits(state: Mapping[str, "Tensor"]) -> dict[str, StateFit]:
    """Compare a state dict with every family that has a method ``fit``."""
    families = {name: load_family(name) for name in supernet_names()}
    return {n: f.fit(state) for n, f in families.items() if hasattr(f, "fit")}
