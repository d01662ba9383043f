"""How who evaluates is written down: a number of processes, or ``ray``."""

from importlib.util import find_spec

from hwsearch.errors import InputError

RAY = "ray"
Workers = int | str


def check_workers(given: Workers) -> Workers:
    """Return a number of processes, or ``"ray"``.

    Raises:
        InputError: It is neither, or Ray is not installed.
    """
    if given == RAY:
        if find_spec("ray") is None:
            raise InputError("workers 'ray' need Ray: pip install 'hwsearch[ray]'")
        return RAY
    number = int(given) if isinstance(given, str) and given.isdecimal() else given
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise InputError(
            f"workers {given!r} are not usable; give a whole number of processes on this machine "
            "from 1 up, or 'ray' for the nodes of a Ray cluster"
        )
    return number
