"""The option ``workers``: evaluation in this process, or on the nodes of a Ray cluster."""

from hwsearch.devices import Device
from hwsearch.devices.spec import split_name
from hwsearch.evaluation.evaluator import Evaluator
from hwsearch.kit.device import DEVICE
from hwsearch.run.cluster.jobs import SearchJobs
from hwsearch.run.cluster.scheduler import InProcess, JobScheduler, Scheduler
from hwsearch.run.progress import Progress
from hwsearch.run.settings import Workers, check_workers
from hwsearch.run.setup import Setup


def cluster_device(workers: Workers, spec: str) -> Device | None:
    """Return the device of a cluster's node; None for this process and for ``kit:FILE``."""
    if not check_workers(workers) or split_name(spec)[0] == DEVICE.name:
        return None
    from hwsearch.run.cluster.connection import device_on_node

    return device_on_node(spec)


def make_scheduler(
    workers: Workers, setup: Setup, evaluator: Evaluator, progress: Progress
) -> Scheduler:
    """Return the scheduler that evaluates the proposals of a search."""
    if not check_workers(workers):
        return InProcess(lambda archs: evaluator.search_values(archs, setup.measured))
    from hwsearch.run.cluster.ray_queue import RayQueue
    from hwsearch.run.cluster.worker_context import search_spec

    queue = RayQueue(setup.device.spec, search_spec(setup), progress)
    return JobScheduler(queue, SearchJobs(evaluator, setup.measured))
