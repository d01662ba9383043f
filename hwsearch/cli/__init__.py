"""Command line of hwsearch.

Exit codes: 0 done, 1 failure, 2 usage or bad input, 3 nothing feasible, 130 interrupted.
"""

# Imports register the commands, in the order of the help.
# isort: off
from hwsearch.cli import runs, settings, devices, kit, worker  # noqa: F401
from hwsearch.cli import elastify, supernets, clean  # noqa: F401

# isort: on
from hwsearch.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the ``hwsearch`` command."""
    app()
