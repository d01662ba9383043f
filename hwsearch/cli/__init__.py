"""The command line: parses, prints, nothing else.

Exit codes: 0 done, 1 failure, 2 usage or bad input, 3 nothing feasible, 130 interrupted.
"""

# Each registers its commands; this order is that of the help.
from hwsearch.cli import runs, settings, devices, tables, kit, worker, supernets, clean  # noqa: F401  # isort: skip
from hwsearch.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of the ``hwsearch`` command."""
    app()
