import importlib.util
import os

import pytest

from tests.run.cluster.cluster_parts import Folder

HAS_RAY = importlib.util.find_spec("ray") is not None


ON_RAY = [  # marks of tests that start a Ray cluster on this machine
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default:::ray"),
    pytest.mark.skipif(not HAS_RAY, reason="pip install 'hwsearch[ray]'"),
]


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "orders"
    path.mkdir()
    return Folder(path)


@pytest.fixture(scope="session")
def cluster():
    """Cluster of nodes that ``add(devices)`` joins, as `hwsearch worker` would."""
    from hwsearch.run.cluster.start_node import ENVIRONMENT, NODE, device_resource

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        patch.setenv("RAY_ADDRESS", made.address)

        def add(*specs):
            resources = {NODE: 1.0, **{device_resource(spec): 1.0 for spec in specs}}
            return made.add_node(num_cpus=1, resources=resources)

        made.add = add
        yield made
        import ray

        ray.shutdown()
        made.shutdown()


@pytest.fixture
def nodes(cluster, folder):
    """Two nodes; the first one declares the device of the folder."""
    added = [cluster.add(f"by-key:{folder.path}"), cluster.add()]
    cluster.wait_for_nodes()
    yield added
    import ray

    ray.shutdown()
    for node in added:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
