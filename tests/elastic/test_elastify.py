import numpy as np
import onnx
import pytest

from hwsearch.elastic import elastify as elastic, proposal
from hwsearch.elastic.elastify import elastify, open_elastic
from hwsearch.elastic.folder import CARD, STATISTICS
from hwsearch.elastic.proposal import SpaceSettings
from hwsearch.errors import InputError
from hwsearch.models.agreement import count_macs, count_params
from hwsearch.supernets.interface import (
    ImagePreprocessing,
    InputSpec,
    TensorSpec,
)
from tests.elastic.small_models import MODELS, full_model, mlp, residual_cnn, samples, transformer
from tests.elastic.test_slicing import difference, run

IMAGE = ImagePreprocessing(resize=14, crop=12, mean=(0.0,) * 3, std=(1.0,) * 3)
SPEC = InputSpec(
    inputs=(TensorSpec(name="image", shape=(3, 12, 12)),),
    outputs=("head",),
    preprocessing=IMAGE,
    classes=("a", "b"),
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def batches(structure, count=64, seed=0):
    drawn = samples(structure, count, seed)
    half = count // 2
    return [
        {name: array[:half] for name, array in drawn.items()},
        {name: array[half:] for name, array in drawn.items()},
    ]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_becomes_a_network_that_is_verified(name):
    structure = MODELS[name]()
    net = elastify(full_model(structure.graph), batches(structure), name=name)
    inputs = samples(structure, 2, seed=9)
    whole = run(full_model(structure.graph), inputs)
    assert difference(run(net.onnx_model(net.space.largest()[0]), inputs), whole) < 1e-5
    archs = net.space.sample(4, seed=0)
    for arch, macs, params in zip(archs, net.macs(archs), net.params(archs), strict=True):
        cut, zeroed = net.reference_models(arch)
        assert difference(run(cut, inputs), run(zeroed, inputs)) < 1e-5
        model = net.onnx_model(arch)
        assert (count_macs(model), count_params(model, ())) == (macs, params)
        assert [v.name for v in model.graph.output] == list(net.input_spec(arch).outputs)


def test_repair_brings_outputs_nearer():
    structure = residual_cnn()
    net = elastify(full_model(structure.graph), batches(structure, 128))
    largest = net.space.largest()[0]
    half = (
        net.space.architectures({**largest, "block.width": 12, "down.width": 16})[0]
        if ({"block.width", "down.width"} <= set(net.space.names))
        else net.space.sample(1, seed=0)[0]
    )
    inputs = samples(structure, 32, seed=7)
    given = run(full_model(structure.graph), inputs)[0]
    cut, _ = net.reference_models(half)
    errors = [
        float(np.square(run(model, inputs)[0] - given).mean())
        for model in (cut, net.onnx_model(half))
    ]
    assert errors[1] < 0.8 * errors[0]


def test_what_was_made_before_is_opened(home, monkeypatch):
    structure = mlp()
    given = batches(structure)
    first = elastify(full_model(structure.graph), given, name="mlp")
    monkeypatch.setattr(elastic, "gather", None)  # it is not called again
    again = elastify(full_model(structure.graph), given, name="mlp")
    assert again.digest == first.digest
    assert again.space == first.space
    (arch,) = first.space.sample(1, seed=1)
    assert again.onnx_content(arch) == first.onnx_content(arch)
    assert len(list((home / "elastic").glob("mlp-*.elastic"))) == 1


def test_models_of_one_name_are_told_apart(home):
    for seed in (0, 1):
        structure = mlp(seed)
        elastify(full_model(structure.graph), batches(structure), name="mlp")
    elastify(full_model(structure.graph), batches(structure, seed=5), name="mlp")
    assert len(list((home / "elastic").iterdir())) == 3


def test_a_named_folder_of_another_model_is_not_replaced(tmp_path):
    out = tmp_path / "mine.elastic"
    structure, other = mlp(0), mlp(1)
    elastify(full_model(structure.graph), batches(structure), out=out)
    before = (out / CARD).read_bytes()
    with pytest.raises(InputError, match="is an elastic model of another model"):
        elastify(full_model(other.graph), batches(other), out=out)
    with pytest.raises(InputError, match="is an elastic model of other samples"):
        elastify(full_model(structure.graph), batches(structure, seed=3), out=out)
    assert (out / CARD).read_bytes() == before


@pytest.mark.parametrize(
    ("place", "says"),
    [("taken", "is no elastic model; give a name"), ("taken/x.elastic", "cannot be written")],
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    tmp_path, monkeypatch, place, says
):
    def unwanted(*_):
        raise AssertionError("it was analysed")

    (tmp_path / "taken").touch()
    monkeypatch.setattr("hwsearch.elastic.elastify.analyse", unwanted)
    structure = mlp(0)
    with pytest.raises(InputError, match=says):
        elastify(full_model(structure.graph), batches(structure), out=tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_interrupted_statistics_go_on(tmp_path):
    structure = residual_cnn()
    out, given = tmp_path / "x.elastic", batches(structure)
    calls = []

    def interrupt(step, done, total):
        calls.append(step)
        if step == "gather statistics":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        elastify(full_model(structure.graph), given, out=out, progress=interrupt)
    assert not out.exists()
    net = elastify(full_model(structure.graph), given, out=out)
    assert [path.name for path in tmp_path.iterdir() if not path.is_dir()] == []
    other = elastify(full_model(structure.graph), given, out=tmp_path / "y.elastic")
    (arch,) = net.space.sample(1, seed=0)
    assert net.onnx_content(arch) == other.onnx_content(arch)


def test_statistics_outlast_an_interruption_of_what_follows(tmp_path, monkeypatch):
    model, given = full_model(mlp().graph), batches(mlp())
    out = tmp_path / "mine.elastic"

    def interrupt(step, done, total):
        if step == "order the units":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        elastify(model, given, out=out, progress=interrupt)
    # Of other samples there are none.
    other = elastify(model, batches(mlp(), seed=1), out=tmp_path / "other.elastic")
    monkeypatch.setattr(elastic, "gather", None)
    net = elastify(model, given, out=out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert net.digest != other.digest
    with pytest.raises(TypeError):
        elastify(model, batches(mlp(), seed=2), out=tmp_path / "third.elastic")


def test_a_file_is_read_and_named(tmp_path):
    structure = residual_cnn()
    path = tmp_path / "mine.onnx"
    onnx.save(full_model(structure.graph), path)
    net = elastify(path, batches(structure), spec=SPEC, licence="MIT")
    assert net.card.name == "mine"
    assert net.card.licence == "MIT"
    assert str(path) in net.card.source
    assert net.input_spec(net.space.largest()[0]) == SPEC


def test_the_image_can_be_smaller():
    structure = residual_cnn()
    net = elastify(full_model(structure.graph), batches(structure), spec=SPEC)
    choice = next(c for c in net.space.choices if c.name == "resolution")
    assert choice.options == (8, 12)
    assert net.defaults["resolution"] == 12
    arch = net.space.architectures({**net.space.largest()[0], "resolution": 8})
    spec = net.input_spec(arch[0])
    assert spec.inputs[0].shape == (3, 8, 8)
    assert (spec.preprocessing.crop, spec.preprocessing.resize) == (8, 9)
    model = net.onnx_model(arch[0])
    assert count_macs(model) == net.macs(arch)[0]
    run(model, {"image": np.zeros((2, 3, 8, 8), np.float32)})


def test_another_space_of_the_same_model():
    structure = mlp()
    given = batches(structure)
    few = elastify(
        full_model(structure.graph), given, settings=SpaceSettings(fractions=(0.5, 1.0))
    )
    assert {choice.options for choice in few.space.choices} == {(16, 32), (10, 20)} or all(
        len(choice.options) == 2 for choice in few.space.choices
    )
    many = elastify(full_model(structure.graph), given, settings=SpaceSettings(step=1))
    assert many.space.size > few.space.size
    assert many.digest == few.digest


def test_a_folder_keeps_the_step_of_the_machine_that_it_was_made_on(tmp_path, monkeypatch):
    structure, out = mlp(), tmp_path / "x.elastic"
    monkeypatch.setattr(proposal, "processor_step", lambda: 2)
    made = elastify(full_model(structure.graph), batches(structure), out=out)
    monkeypatch.setattr(proposal, "processor_step", lambda: 16)
    assert open_elastic(out).space == made.space
    assert open_elastic(out, settings=SpaceSettings()).space == made.space
    assert open_elastic(out, settings=SpaceSettings(step=16)).space.size < made.space.size


def test_a_refined_subnet_has_the_same_graph():
    structure = transformer()
    given = batches(structure)
    net = elastify(full_model(structure.graph), given)
    (arch,) = net.space.sample(1, seed=2)
    refined, plain = net.refined(arch, given), net.onnx_model(arch)
    assert refined.graph.node == plain.graph.node
    assert [t.dims for t in refined.graph.initializer] == [t.dims for t in plain.graph.initializer]


def test_damaged_statistics_are_refused_when_they_are_opened(tmp_path):
    structure = mlp()
    out = tmp_path / "x.elastic"
    elastify(full_model(structure.graph), batches(structure), out=out)
    (out / STATISTICS).write_bytes(b"")
    with pytest.raises(InputError, match="damaged: statistics"):
        open_elastic(out)


def test_too_little_memory_is_said_before_the_work(monkeypatch):
    monkeypatch.setattr(elastic, "available_memory_bytes", lambda: 1000)
    structure = mlp()
    with pytest.raises(InputError, match=r"GB of memory, and 0.0 GB are available"):
        elastify(full_model(structure.graph), batches(structure))


def test_progress_names_the_steps():
    structure = mlp()
    steps = []
    elastify(
        full_model(structure.graph),
        batches(structure),
        progress=lambda step, done, total: steps.append((step, done <= total)),
    )
    assert all(fine for _, fine in steps)
    assert any("GB of memory" in step for step, _ in steps)


def test_an_input_without_samples_is_refused_before_work_is_spent(monkeypatch):
    structure = mlp()
    proto = full_model(structure.graph)
    scale = onnx.helper.make_tensor_value_info("scale", onnx.TensorProto.FLOAT, [1])
    proto.graph.input.append(scale)
    (name,) = (value.name for value in structure.graph.proto.graph.output)
    proto.graph.node.append(onnx.helper.make_node("Mul", [name, "scale"], ["scaled"]))
    proto.graph.output[0].name = "scaled"
    monkeypatch.setattr(elastic, "gather", None)
    given = [{**batch, "scale": np.ones(1, np.float32)} for batch in batches(structure)]
    with pytest.raises(InputError, match=r"'scale' of shape \(1,\) has no axis for the samples"):
        elastify(proto, given)
