"""A worker of the local pool: ``main`` serves the process that started it."""

from typing import NoReturn

from hwsearch.devices.frames import Arrays, Header
from hwsearch.devices.worker import Answer, serve
from hwsearch.errors import HwsearchError
from hwsearch.run.cluster.worker_context import Workplace, stopped


def _begin(settings: Header) -> tuple[Header, Answer]:
    try:
        place = Workplace(settings)
    except HwsearchError as error:
        reply = stopped(error)

        def refuse(header: Header, arrays: Arrays) -> tuple[Header, Arrays]:
            del header, arrays
            return reply, []

        return reply, refuse
    return {}, place.do


def main() -> NoReturn:
    """Do work until the parent closes the pipe."""
    serve(_begin)
