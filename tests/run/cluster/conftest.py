import importlib.util
import os

import pytest

from tests.run.cluster.cluster_parts import Folder

HAS_RAY = importlib.util.find_spec("ray") is not None
WITHOUT_RAY = "Ray is not installed: pip install 'hwsearch[ray]'"
RAY = pytest.param(
    "ray",
    marks=[
        pytest.mark.ray,
        pytest.mark.timeout(300),
        pytest.mark.skipif(not HAS_RAY, reason=WITHOUT_RAY),
        pytest.mark.filterwarnings("default:::ray"),
    ],
)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "orders"
    path.mkdir()
    return Folder(path)


@pytest.fixture(scope="session")
def cluster():
    """Cluster of nodes that ``add(devices)`` joins, as `hwsearch worker` would."""
    from hwsearch.run.cluster.connection import ENVIRONMENT, SEAT, device_resource

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        patch.setenv("RAY_ADDRESS", made.address)

        def add(*specs, **seat):
            given = {**SEAT, **seat}
            cpus = given.pop("CPU")
            custom = {**given, **{device_resource(spec): 1.0 for spec in specs}}
            return made.add_node(num_cpus=cpus, resources=custom)

        made.add = add
        yield made
        import ray

        ray.shutdown()
        made.shutdown()


@pytest.fixture
def workers(request, folder):
    """Whoever evaluates; on a cluster, two nodes that declare the device of the folder."""
    if request.param != "ray":
        yield request.param
        return
    cluster = request.getfixturevalue("cluster")
    nodes = [cluster.add(f"by-key:{folder.path}") for _ in range(2)]
    cluster.wait_for_nodes()
    yield "ray"
    import ray

    ray.shutdown()
    for node in nodes:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
