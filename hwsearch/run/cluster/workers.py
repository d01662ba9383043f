"""Who evaluates for a search: a crew with the executor that was asked for."""

from hwsearch.devices import Device
from hwsearch.devices.base import split_name
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.kit.device import DEVICE
from hwsearch.run.cluster.executor import Executor, InProcess
from hwsearch.run.cluster.given import RAY, Workers
from hwsearch.run.cluster.job_source import SearchDesk
from hwsearch.run.cluster.scheduler import Crew
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup


def device_of(workers: Workers, spec: str) -> Device | None:
    """Return the device of the cluster's node that declares it; None for that of this machine.

    A device that is known by a table is nobody's.

    Raises:
        InputError: There is no cluster, no node declares the device, or this machine cannot run
            its models.
    """
    if workers != RAY or split_name(spec)[0] == DEVICE.name:
        return None
    from hwsearch.run.cluster.ray_device import device_on_node

    return device_on_node(spec)


def hire(
    workers: Workers,
    setup: Setup,
    evaluator: Evaluator,
    progress: Progress,
) -> Crew:
    """Return who evaluates the proposals of a search.

    Args:
        workers: As `check_workers` returned it.
        setup: The parts of the search.
        evaluator: Measures in this process, and remembers what others measure.
        progress: Told of workers that are lost or awaited.
    """
    if workers == 1:
        return Crew(InProcess(lambda archs: evaluator.search_values(archs, setup.measured)))
    desk = SearchDesk(evaluator, setup.measured)
    return Crew(_executor(workers, setup, progress), desk, progress)


def _executor(workers: Workers, setup: Setup, progress: Progress) -> Executor:
    if isinstance(workers, int):
        from hwsearch.run.cluster.pool import Pool

        return Pool(setup, workers)
    from hwsearch.run.cluster.ray_node import parcel_of
    from hwsearch.run.cluster.ray_queue import RayExecutor

    return RayExecutor(setup.device.spec, parcel_of(setup), progress)
