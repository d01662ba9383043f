"""The option ``workers``: evaluation in this process, or on the nodes of a Ray cluster."""

from importlib.util import find_spec

from hwsearch.devices import Device
from hwsearch.devices.spec import split_name
from hwsearch.errors import InputError
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.kit.device import DEVICE
from hwsearch.run.cluster.jobs import SearchJobs
from hwsearch.run.cluster.scheduler import InProcess, JobScheduler, Scheduler
from hwsearch.run.progress import Progress
from hwsearch.run.setup import Setup

RAY = "ray"
Workers = int | str | None


def check_workers(given: Workers) -> bool:
    """Return whether a Ray cluster evaluates.

    Args:
        given: ``"ray"``; or 1 or None for this process.

    Raises:
        InputError: It is something else, or Ray is not installed.
    """
    if given == RAY:
        if find_spec("ray") is None:
            raise InputError("workers 'ray' need Ray: pip install 'hwsearch[ray]'")
        return True
    if given is None or (not isinstance(given, bool) and str(given) == "1"):
        return False
    raise InputError(
        f"workers {given!r} are not usable: a search evaluates in its own process, or by 'ray' on "
        "the nodes of a Ray cluster, which also runs on one machine; run 'hwsearch worker' on "
        "each node and give workers 'ray', or leave the setting out"
    )


def cluster_device(workers: Workers, spec: str) -> Device | None:
    """Return the device of a cluster's node; None where this process has the device.

    A device that is given by a latency table belongs to no node.

    Raises:
        InputError: There is no cluster, no node declares the device, or this machine cannot
            compute its outputs.
    """
    if not check_workers(workers) or split_name(spec)[0] == DEVICE.name:
        return None
    from hwsearch.run.cluster.connection import device_on_node

    return device_on_node(spec)


def make_scheduler(
    workers: Workers, setup: Setup, evaluator: Evaluator, progress: Progress
) -> Scheduler:
    """Return what evaluates the proposals of a search.

    Args:
        workers: See `check_workers`.
        setup: The parts of the search.
        evaluator: Measures in this process, and stores what the nodes measure.
        progress: Told when jobs wait for nodes.
    """
    if not check_workers(workers):
        return InProcess(lambda archs: evaluator.search_values(archs, setup.measured))
    from hwsearch.run.cluster.ray_queue import RayQueue
    from hwsearch.run.cluster.worker_context import search_spec

    queue = RayQueue(setup.device.spec, search_spec(setup), progress)
    return JobScheduler(queue, SearchJobs(evaluator, setup.measured))
