"""Who evaluates for a search, from how it is written down: a number of processes, or ``ray``."""

from importlib.util import find_spec

from hwsearch.devices import Device
from hwsearch.errors import InputError
from hwsearch.optimizer.history import History
from hwsearch.run.evaluation import Evaluator
from hwsearch.run.progress import Progress
from hwsearch.run.race import Race
from hwsearch.run.setup import Setup
from hwsearch.run.workers.crew import Crew
from hwsearch.run.workers.desk import SearchDesk
from hwsearch.run.workers.executor import Executor, InProcess

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


def device_of(workers: Workers, spec: str) -> Device | None:
    """Return the device of the cluster's node that declares it; None for that of this machine.

    Raises:
        InputError: There is no cluster, no node declares the device, or this machine cannot run
            its models.
    """
    if workers != RAY:
        return None
    from hwsearch.run.workers.ray_device import device_on_node

    return device_on_node(spec)


def hire(
    workers: Workers,
    setup: Setup,
    evaluator: Evaluator,
    history: History,
    race: Race | None,
    progress: Progress,
) -> Crew:
    """Return who evaluates the proposals of a search.

    Args:
        workers: As `check_workers` returned it.
        setup: The parts of the search.
        evaluator: Measures in this process, and remembers what others measure.
        history: Of the search.
        race: Of the search, if it has one.
        progress: Told of workers that are lost or awaited.
    """
    if workers == 1:
        return Crew(InProcess(lambda archs: evaluator.search_values(archs, setup.measured, race)))
    desk = SearchDesk(evaluator, setup.measured, history, race)
    return Crew(_executor(workers, setup, progress), desk, progress)


def _executor(workers: Workers, setup: Setup, progress: Progress) -> Executor:
    if isinstance(workers, int):
        from hwsearch.run.workers.pool import Pool

        return Pool(setup, workers)
    from hwsearch.run.workers.ray_executor import RayExecutor
    from hwsearch.run.workers.ray_node import parcel_of

    return RayExecutor(setup.device.spec, parcel_of(setup), progress)
