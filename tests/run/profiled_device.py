"""A device whose latencies are sums over blocks, of the bundled supernet's miniature."""

from hwsearch_test_plugin.scripted_device import FakeDevice

from hwsearch.devices.base import Profile
from hwsearch.errors import DeviceError
from hwsearch.supernets.supernet import Supernet
from tests.run.search_parts import NET, network

PER_NODE_MS, OVERHEAD_MS = 0.003, 0.04
MINIATURE = Supernet(NET, network())
ARCHS = {arch.key: arch for arch in MINIATURE.full_space.enumerate(1000)}


def block_ms(block):
    """Work, a constant, and a whim of the kind: the same for equal specs."""
    return block.macs / 1e6 + 0.02 + 0.01 * (sum(map(ord, block.spec.kind)) % 7)


def latency_of(key, path=None):
    return OVERHEAD_MS + sum(map(block_ms, MINIATURE.blocks(ARCHS[key])))


class Unprofiled(FakeDevice):
    """Counts what it measures; may fail, or be stopped.

    Args:
        failing: Keys of models that it refuses.
        stop_after: Number of models after which measuring is interrupted.
    """

    def __init__(self, failing=(), stop_after=None, script=latency_of):
        super().__init__(script)
        self.failing, self.stop_after = set(failing), stop_after
        self.measured, self.profiled = [], []

    def measure(self, models, *, seed, settings=None, progress=None):
        if self.stop_after is not None and len(self.measured) >= self.stop_after:
            raise KeyboardInterrupt
        self.measured += models
        found = super().measure(models, seed=seed, settings=settings)
        return {k: DeviceError("refused") if k in self.failing else v for k, v in found.items()}


class Profiled(Unprofiled):
    """Says where the time goes, with names as ONNX Runtime gives them."""

    def profile(self, models, *, runs=20):
        self.profiled += models
        return {key: self.profile_of(key) for key in models}

    def profile_of(self, key):
        nodes = {}
        for number, block in enumerate(MINIATURE.blocks(ARCHS[key])):
            nodes[f"{block.name}/conv/Conv"] = 0.7 * block_ms(block) + PER_NODE_MS
            nodes[f"{block.name}output_nchwc"] = 0.2 * block_ms(block) + PER_NODE_MS
            nodes[f"ReorderOutput_token_{number}"] = 0.1 * block_ms(block) + PER_NODE_MS
        return Profile(nodes_ms=nodes, total_ms=sum(nodes.values()))


class Unwilling(Profiled):
    """Has a profiler that fails on every model."""

    def profile_of(self, key):
        return DeviceError("no profile today")
