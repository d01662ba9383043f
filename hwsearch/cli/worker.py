"""Command of a node of a Ray cluster: worker."""

from typing import Annotated

import typer

from hwsearch.cli.app import command
from hwsearch.cli.output import result_stream, say


@command("hwsearch worker --device ort-cpu:threads=4", has_json=False)
def worker(
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="Repeat it; measure latencies for it here, one at a time and beside nothing else."
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="The cluster to join; without it, start one on this machine."
        ),
    ] = None,
) -> None:
    """Let this machine evaluate for searches with --workers ray, until Ctrl-C.

    It becomes a node of a Ray cluster and runs one job at a time; Ray's messages go to stderr.
    Everyone who reaches a cluster's ports can run any code on its nodes: use it in a network that
    you trust.
    """
    from hwsearch.run.cluster.start_node import run_node

    def announce(at: str) -> None:
        tasks = f"evaluates, and measures {', '.join(device)}" if device else "evaluates"
        lines = [f"worker   this machine {tasks}; Ctrl-C ends it"]
        if address is None:
            lines += [
                f"join     on other machines:  hwsearch worker --address {at}",
                "search   on this machine:  hwsearch search --workers ray",
            ]
        say(*lines)
        result_stream().flush()  # Ray replaces this process

    run_node(device or [], address, announce)
