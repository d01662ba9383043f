from dataclasses import replace

import numpy as np
import onnx
import pytest

import tests.run.search_parts as parts
from hwsearch.chains import ChainIndex
from hwsearch.devices.ort_runtime import RUNTIME
from hwsearch.devices.spec import file_precision
from hwsearch.errors import HwsearchError, InputError
from hwsearch.kit.build import load_for_latency
from hwsearch.models.onnx_file import precision_of
from hwsearch.models.repeated_weights import timing_model
from hwsearch.prediction.block_times import split_nodes
from hwsearch.quantization import Quantization
from hwsearch.run.profile import deviation, make_table
from hwsearch.tables import LatencyTable
from tests.run.profiled_device import (
    ARCHS,
    MINIATURE,
    OVERHEAD_MS,
    Profiled,
    Unprofiled,
    Unwilling,
    block_ms,
    latency_of,
)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch):
    monkeypatch.setattr("hwsearch.run.profile.VALIDATING", 4)
    monkeypatch.setattr("hwsearch.run.profile.GROUP_SIZE", 4)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tables" / "miniature.json"


def blocks_of(net):
    return {b.spec: b for arch in net.space.enumerate(1000) for b in net.blocks(arch)}


def test_a_table_has_every_block_at_its_latency(path):
    table = make_table(MINIATURE, Profiled(), path)
    known = blocks_of(MINIATURE)
    assert set(table.blocks) == set(known)
    for spec, cost in table.blocks.items():
        assert cost.latency_ms == pytest.approx(block_ms(known[spec]), rel=0.06)
    assert table.overhead_ms == pytest.approx(OVERHEAD_MS, abs=0.02)
    assert table.facts["method"] == "profile"
    assert LatencyTable.load(path) == table
    assert [found.name for found in path.parent.iterdir()] == [path.name]


def test_it_says_what_it_was_made_of_and_for(path):
    device = Profiled()
    table = make_table(MINIATURE, device, path)
    table.check_made_for(MINIATURE.card.name, MINIATURE.full_space.digest, "scripted")
    assert dict(table.fingerprint) == device.fingerprint()
    assert table.baseline_ms == pytest.approx(1.0)
    measured = [MINIATURE.full_space.architectures(s.architecture)[0] for s in table.subnets]
    assert [arch.key for arch in measured] == device.measured
    assert [s.latency_ms for s in table.subnets] == pytest.approx(
        [latency_of(key) for key in device.measured]
    )


def test_it_is_compared_with_subnets_that_it_was_not_made_from(path):
    device = Profiled()
    table = make_table(MINIATURE, device, path)
    purposes = [subnet.purpose for subnet in table.subnets]
    assert purposes.count("validate") == 4
    assert purposes.count("cover") == len(set(device.profiled))
    found = deviation(table, MINIATURE)
    assert found.n == 4
    assert found.mape < 0.02
    assert table.facts["validated"]["mape"] == found.mape
    assert str(found).startswith("off by")


@pytest.mark.parametrize("make", [Unprofiled, Unwilling])
def test_without_profiles_whole_subnets_decide(make, path):
    table = make_table(MINIATURE, make(), path)
    assert table.facts["method"] == "least squares"
    assert set(table.blocks) == set(blocks_of(MINIATURE))
    assert deviation(table, MINIATURE).mape < 0.1


def test_a_stopped_profile_goes_on_where_it_was(path):
    stopped = Profiled(stop_after=8)
    with pytest.raises(KeyboardInterrupt):
        make_table(MINIATURE, stopped, path)
    assert not path.exists()
    rest, whole = Profiled(), Profiled()
    watcher = parts.Watcher()
    table = make_table(MINIATURE, rest, path, progress=watcher)
    unbroken = make_table(MINIATURE, whole, path.with_name("whole.json"))
    assert stopped.measured + rest.measured == whole.measured
    assert table == unbroken
    (phase,) = watcher.phases
    assert phase == ("profile", len(whole.measured), 8)


def test_measurements_of_another_device_are_not_gone_on_with(path):
    with pytest.raises(KeyboardInterrupt):
        make_table(MINIATURE, Profiled(stop_after=4), path)
    other = Profiled()
    other.spec = "scripted:threads=2"
    with pytest.raises(InputError, match=r"latencies of scripted .*is scripted:threads=2"):
        make_table(MINIATURE, other, path)


@pytest.mark.parametrize("damage", ["", "no json", '{"format": 1}\n', "[]\n{}\n"])
def test_a_damaged_results_file_is_refused(damage, path):
    partial = path.with_name(f"{path.name}.partial")
    partial.parent.mkdir()
    partial.write_text(damage)
    with pytest.raises(InputError, match=r"or delete .* to begin anew"):
        make_table(MINIATURE, Profiled(), path)


def test_a_complete_table_is_left_as_it_is(path):
    first = make_table(MINIATURE, Profiled(), path)
    again, watcher = Profiled(), parts.Watcher()
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text("left by a process that was killed")
    assert make_table(MINIATURE, again, path, progress=watcher) == first
    assert not partial.exists()
    assert again.measured == []
    assert "has all" in watcher.notes[0]


def test_a_table_of_a_part_is_completed(path):
    part = MINIATURE.restrict(only=["stage2.width in 8"])
    some = make_table(part, Profiled(), path)
    assert 0 < len(some.blocks) < len(blocks_of(MINIATURE))
    device = Profiled()
    whole = make_table(MINIATURE, device, path)
    assert set(whole.blocks) == set(blocks_of(MINIATURE))
    assert all(whole.blocks[spec] == cost for spec, cost in some.blocks.items())
    assert len(whole.subnets) == len(some.subnets) + len(device.measured)


def test_a_table_of_another_machine_is_not_completed(path):
    part = MINIATURE.restrict(only=["stage2.width in 8"])
    make_table(part, Profiled(), path)
    other = Profiled()
    other.fingerprint = lambda: {**Profiled().fingerprint(), "cpu": "a new one"}
    with pytest.raises(InputError, match="cpu was scripted, is a new one"):
        make_table(MINIATURE, other, path)


def test_a_table_of_another_supernet_is_not_overwritten(path):
    make_table(MINIATURE, Profiled(), path)
    replace(LatencyTable.load(path), supernet="somebody's").save(path)
    with pytest.raises(InputError, match='of supernet "somebody\'s", not of'):
        make_table(MINIATURE, Profiled(), path)
    assert "somebody's" in path.read_text()


def test_what_cannot_be_measured_is_named_and_the_rest_is_kept(path):
    largest = MINIATURE.space.largest()
    index = ChainIndex(MINIATURE.space, MINIATURE.blocks)
    failing = [
        key for key, arch in ARCHS.items() if arch["stage1.width"] == largest[0]["stage1.width"]
    ]
    watcher = parts.Watcher()
    with pytest.raises(HwsearchError, match=r"\d+ of \d+ block specs could not be measured"):
        make_table(MINIATURE, Profiled(failing), path, progress=watcher)
    assert any("cannot be measured: refused" in note for note in watcher.notes)
    table = LatencyTable.load(path)
    assert 0 < len(table.missing(index.specs)) < len(index.specs)
    assert make_table(MINIATURE, Profiled(), path).missing(index.specs) == []


def test_nothing_measured_writes_nothing(path):
    with pytest.raises(HwsearchError, match="no subnet could be measured"):
        make_table(MINIATURE, Profiled(ARCHS), path)
    assert not path.exists()


def test_a_number_of_subnets_that_is_too_small_is_refused(path):
    with pytest.raises(InputError, match=r"2 subnets cannot hold all .* give --subnets \d+"):
        make_table(MINIATURE, Profiled(), path, subnets=2)


def test_a_wanted_number_of_subnets_is_kept_to(path):
    device = Profiled()
    make_table(MINIATURE, device, path, subnets=20)
    assert len(device.profiled) == 20


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "bf16"])
def test_models_have_the_precision_of_the_device(precision, path, monkeypatch):
    device, found = Profiled(), set()
    device.precision = precision
    measure = device.measure

    def measured(models, **settings):
        found.update(precision_of(onnx.load(model)) for model in models.values())
        return measure(models, **settings)

    monkeypatch.setattr(device, "measure", measured)
    table = make_table(MINIATURE, device, path)
    assert found == {file_precision(precision)}
    assert table.fingerprint["precision"] == precision
    assert not table.missing(blocks_of(MINIATURE))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_without_a_converter_nothing_begins(precision, path, monkeypatch):
    device = Profiled()
    device.precision = precision
    monkeypatch.setattr("hwsearch.models.quantize.find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"takes {precision} files, and onnxruntime, .*not inst"):
        make_table(MINIATURE, device, path)
    assert not path.parent.exists()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_every_node_that_onnx_runtime_times_is_near_its_block(precision, threads, tmp_path):
    """Nodes without the name of a block are layout changes and parts of an activation."""
    arch = MINIATURE.space.largest()[0]
    model = timing_model(MINIATURE, arch, precision, Quantization(activations="uint8"))
    onnx.save(model, tmp_path / "model.onnx")
    options = {"threads": threads, "profile": True}
    loaded = RUNTIME.load(str(tmp_path / "model.onnx"), batch=1, options=options)
    (spec,) = MINIATURE.input_spec(arch).inputs
    bound = loaded.bind({spec.name: np.zeros((1, *spec.shape), np.float32)})
    bound.modes["run"]()
    nodes, _ = loaded.profile()
    names = [block.name for block in MINIATURE.blocks(arch)]
    _, counts = split_nodes(dict.fromkeys(nodes, 1.0), names)
    own = {name: sum(node.startswith(name) for node in nodes) for name in names}
    assert all(own.values())
    assert sum(counts.values()) == len(nodes)
    elsewhere = {node for node in nodes if not node.startswith(tuple(names))}
    allowed = ("Reorder", "Transpose", spec.name, MINIATURE.input_spec(arch).outputs[0])
    assert all(node.startswith(allowed) for node in elsewhere)


def test_a_supernet_without_weights_gets_random_ones():
    assert load_for_latency("ofa-mbv3-w1.0", None).checkpoint == "random:0"
    with pytest.raises(InputError, match="unknown supernet"):
        load_for_latency("nobody's", None)
