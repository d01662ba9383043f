"""The worker's side, in this process: through messages a search is the same to the last bit."""

from collections import deque

import numpy as np
import pytest

import hwsearch
from hwsearch.errors import DataError, InputError
from hwsearch.files import sha256_of
from hwsearch.run.cluster.jobs import Work, read_findings, write_work
from hwsearch.run.cluster.ray_node import do, measure, parcel_of
from hwsearch.run.cluster.remote_device import runner
from hwsearch.run.cluster.worker_context import Workplace, check_reply, settings_of
from hwsearch.run.config import RunConfig
from hwsearch.run.setup import prepare
from hwsearch.supernets.checkpoints import bundled_file
from tests.run.cluster.cluster_parts import config, settings
from tests.run.cluster.test_work import sent

WEIGHTS = bundled_file("cifar10-resnet", "weights.safetensors")


class Here:
    """Work through messages, one piece after the other."""

    whole, size = False, 1

    def __init__(self, setup):
        self.place, self.waiting = Workplace(settings_of(setup, threads=1)), deque()

    def submit(self, work):
        self.waiting.append(work)

    def next(self):
        work = self.waiting.popleft()
        header, arrays = self.place.do(*sent(write_work(work)))
        return work, read_findings(*sent((check_reply(header, "here"), arrays)))

    def close(self):
        self.place.close()


def everything(run, without_tiles=("weights",)):
    found = {}
    for m in run.measurements():
        details = {k: v for k, v in m.details.items() if k not in without_tiles}
        samples = None if m.samples is None else m.samples.tobytes()
        found[m.identity] = (m.value, m.low, m.high, m.count, samples, details)
    return found


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("quick_infer")
def test_a_search_through_messages_is_the_search_itself(folder, tmp_path, monkeypatch):
    given = settings(folder, tactic="random", batch=1, budget=14)
    net = given.pop("supernet")
    alone = hwsearch.search(net, **given, out=tmp_path / "alone")
    monkeypatch.setattr("hwsearch.run.cluster.workers._executor", lambda *args: Here(args[1]))
    through = hwsearch.search(net, **given, out=tmp_path / "through", workers=2)
    assert through.trials.equals(alone.trials)
    assert everything(through) == everything(alone)
    assert through.front.equals(alone.front)
    latencies = [m for m in through.measurements() if m.identity[1::2] == ("latency", "search")]
    assert {m.details["weights"] for m in latencies} == {"a repeated tile in the same graph"}


@pytest.fixture
def made(folder):
    setup = prepare(config(folder))
    yield setup
    setup.device.close()


class TestRefuses:
    def test_another_version(self, made):
        with pytest.raises(InputError, match=r"it has hwsearch .*, the search 0\.0\.0; install"):
            Workplace({**settings_of(made), "version": "0.0.0"})

    def test_other_weights(self, made, folder):
        given = settings_of(made)
        folder.exchange()
        with pytest.raises(InputError, match="would not compare: weights was"):
            Workplace(given)

    def test_to_measure_on_a_device_that_is_another_one(self, made):
        given = settings_of(made)
        given["fingerprint"] = {**given["fingerprint"], "cpu": "another"}
        place = Workplace(given)
        work = Work(archs=(made.net.space.smallest()[0],), quantities=("latency",))
        header, _ = place.do(*write_work(work))
        with pytest.raises(InputError, match=r"a node: device .* cpu was another, is scripted"):
            check_reply(header, "a node")

    def test_the_kind_of_an_error_arrives(self):
        with pytest.raises(DataError, match="a node: no such image"):
            check_reply({"stop": ["DataError", "no such image"]}, "a node")
        assert check_reply({"failed": {}}, "a node") == {"failed": {}}


def test_outputs_come_from_the_same_runtime_where_a_machine_has_too_few_processors():
    device = runner("ort-cpu:threads=100000,precision=int8", "int8")
    assert (device.spec, device.precision) == ("ort-cpu:threads=1,precision=int8", "int8")
    with pytest.raises(InputError, match="unknown device"):
        runner("no-such", "fp32")


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="the bundled weights are not there")
class TestParcel:
    def setup_of(self, **given):
        return prepare(RunConfig(device="scripted", data="bundled", **given))

    def check(self, parcel, setup):
        """A node makes the search of it, and works."""
        arch = setup.net.space.smallest()[0]
        work = Work(archs=(arch,), quantities=("latency",))
        findings = read_findings(*do(parcel, *write_work(work)))
        assert [m.quantity for m in findings.measurements] == ["latency"]

    def test_weights_that_nodes_cannot_have_travel(self, tmp_path):
        file = tmp_path / "mine.safetensors"
        file.write_bytes(WEIGHTS.read_bytes())
        setup = self.setup_of(checkpoint=str(file))
        parcel = parcel_of(setup)
        assert parcel.weights.tobytes() == WEIGHTS.read_bytes()
        file.unlink()
        self.check(parcel, setup)

    def test_so_do_imported_ones(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "here"))
        hwsearch.import_checkpoint(WEIGHTS, "mine")
        setup = self.setup_of(supernet="mine")
        parcel = parcel_of(setup)
        monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "a node"))
        self.check(parcel, setup)

    def test_those_that_ship_do_not(self):
        assert parcel_of(self.setup_of()).weights is None
        assert parcel_of(self.setup_of(checkpoint="random:3")).weights is None


def test_a_node_measures_files_that_came_as_bytes(made, folder, tmp_path):
    arch = made.net.space.largest()[0]
    evaluator = made.evaluator(None)
    path = evaluator.write_model(arch, tmp_path)
    digest = sha256_of(path)
    fingerprint = made.device.fingerprint()
    content = {arch.key: np.fromfile(path, np.uint8)}
    reply, found = measure(f"by-key:{folder.path}", fingerprint, content, 0, None)
    assert (reply, list(found)) == ({}, [arch.key])
    assert (
        found[arch.key].latency_ms
        == made.device.measure({arch.key: path}, seed=0)[arch.key].latency_ms
    )
    assert sha256_of(path) == digest
    reply, _ = measure(f"by-key:{folder.path}", {"cpu": "another"}, content, 0, None)
    with pytest.raises(InputError, match="is not the same here"):
        check_reply(reply, "a node")
