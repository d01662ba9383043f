"""``python -m hwsearch`` is the ``hwsearch`` command."""

from hwsearch.cli import main

main()
