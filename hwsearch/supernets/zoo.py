"""Supernets by name: the registered families and ``module:function``."""

from hwsearch import plugins
from hwsearch.errors import InputError
from hwsearch.supernets.base import Family, Supernet

GROUP = "hwsearch.supernets"
OWED = ("space", "card", "digest", "recalibrate", "subnet", "input_spec", "blocks")


def supernet_names() -> list[str]:
    """Names of all registered families."""
    return plugins.names(GROUP)


def load_family(name: str) -> Family:
    """Return a registered family.

    Raises:
        InputError: No family is registered under that name.
    """
    family: Family = plugins.load(GROUP, name, "supernet")
    return family


def load_supernet(name: str, checkpoint: str | None = None) -> Supernet:
    """Load a supernet.

    Args:
        name: A registered name (see ``hwsearch supernets``), or ``module:function`` of a function
            that takes the checkpoint and returns the network.
        checkpoint: A file, or ``"random:SEED"`` for seeded random weights; None takes the
            checkpoint that ships with the supernet.

    Raises:
        InputError: The name is unknown, the checkpoint does not fit, or what a function returned
            lacks something that a supernet owes.
    """
    if ":" in name:
        network = plugins.import_function(name, "supernet")(checkpoint)
    else:
        network = load_family(name).load(checkpoint)
    lacking = [attribute for attribute in OWED if not hasattr(network, attribute)]
    if lacking:
        raise InputError(
            f"supernet {name!r} lacks {', '.join(lacking)}; "
            "hwsearch.supernets.base.Network says what a supernet owes"
        )
    return Supernet(name, network, checkpoint)
