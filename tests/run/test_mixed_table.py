"""Latency tables in which blocks have a precision, and boundaries between them a cost."""

import numpy as np
import pytest
from typer.testing import CliRunner

import tests.run.search_parts as parts
from hwsearch.chains import ChainIndex
from hwsearch.cli import app
from hwsearch.errors import InputError
from hwsearch.precision import BOUNDARY
from hwsearch.prediction.latency import ExpectedWork, LatencyPredictor
from hwsearch.run.config import RunConfig
from hwsearch.run.profile import deviation, make_table
from hwsearch.run.setup import prepare
from hwsearch.tables import LatencyTable
from tests.run.profiled_device import MINIATURE, OVERHEAD_MS, Profiled, block_ms

MIXED = MINIATURE.with_precision("fp32", "int8", per="block")
PART = MIXED.restrict(freeze=["stage*=max"])
MASKS = PART.space.enumerate(1000)
KEYS = {arch.key: arch for arch in MASKS}
SHARE = 0.4  # of the time of a block in float32


def timed_ms(block):
    """A boundary costs by the size of what is converted, and one way more than the other."""
    given = dict(block.spec.hyperparameters)
    if block.spec.kind == BOUNDARY:
        return (0.08 if given["to"] == "fp32" else 0.05) + np.prod(block.spec.input_shape) / 1e5
    return block_ms(block) * (SHARE if given.get("precision") == "int8" else 1.0)


def latency_of(key, path=None):
    return OVERHEAD_MS + sum(map(timed_ms, PART.timed_blocks(KEYS[key])))


class Device(Profiled):
    """Files are of any precision; nodes between blocks have no names of blocks."""

    def __init__(self, script=latency_of):
        super().__init__(script=script)
        self.precision = "mixed"

    def profile_of(self, key):
        raise AssertionError("profiles do not say what belongs to a boundary")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "mixed.json"
    return make_table(PART, Device(), path)


def test_random_masks_are_predicted_within_a_percent(table):
    predicted = LatencyPredictor(PART.space, PART.timed_blocks, table).predict_mean(MASKS)
    measured = np.array([latency_of(key) for key in MASKS.ids])
    assert np.abs(predicted / measured - 1).max() < 0.01
    assert deviation(table, PART).worst < 0.01


def test_boundaries_have_a_latency_of_their_own(table):
    boundaries = {spec: cost for spec, cost in table.blocks.items() if spec.kind == BOUNDARY}
    assert {dict(spec.hyperparameters)["to"] for spec in boundaries} == {"fp32", "int8"}
    assert sum(cost.latency_ms for cost in boundaries.values()) > 0.05 * len(boundaries)


def test_a_table_by_blocks_serves_searches_of_whole_precisions(table):
    whole = MINIATURE.with_precision("fp32", "int8").restrict(freeze=["stage*=max"])
    found = LatencyPredictor(whole.space, whole.timed_blocks, table)
    int8, fp32 = found.predict_mean(whole.space.enumerate(2))
    assert int8 == pytest.approx(min(map(latency_of, KEYS)), rel=0.01)
    assert fp32 == pytest.approx(latency_of(PART.space.largest()[0].key), rel=0.01)
    assert deviation(table, whole) is None


def test_it_is_read_from_its_file(table, tmp_path):
    table.save(tmp_path / "t.json")
    assert LatencyTable.load(tmp_path / "t.json") == table
    assert table.space == MINIATURE.full_space.digest


@pytest.mark.parametrize(
    ("net", "precision", "says"),
    [(MINIATURE, "mixed", "none is chosen"), (MIXED, "int8", "takes int8 files alone")],
)
def test_a_device_of_other_precisions_is_refused(net, precision, says, tmp_path):
    device = Device()
    device.precision = precision
    with pytest.raises(InputError, match=says):
        make_table(net, device, tmp_path / "t.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("precision", "says"),
    [("fp32,int8", "takes files of one precision"), ("fp32", "are no choice")],
)
def test_the_command_refuses_what_the_device_does_not_take(precision, says):
    given = ["profile", parts.NET, "--device", "scripted", "--precision", precision]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert says in " ".join(result.output.split())


def test_without_a_table_latency_has_what_precision_saves_as_a_covariate(monkeypatch):
    monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: Device())
    settings = {"supernet": parts.NET, "data": parts.TASK}
    for precision in ("fp32,int8", "fp32,int8:per-block"):
        setup = prepare(RunConfig(precision=precision, **settings))
        latency = next(o for o in setup.objectives if o.name == "latency")
        (smallest,), (largest,) = map(
            latency.covariate, (setup.net.space.smallest(), setup.net.space.largest())
        )
        assert largest == setup.net.exact("macs", setup.net.space.largest())[0]
        assert smallest == setup.net.exact("macs", setup.net.space.smallest())[0] / 2


def test_boundaries_add_to_the_covariate():
    work = ExpectedWork(ChainIndex(PART.space, PART.timed_blocks))
    mask = {**PART.space.largest()[0].mapping, "precision.head": "int8"}
    (mixed,), (fp32,) = work(PART.space.architectures([mask])), work(PART.space.largest())
    assert mixed > fp32


def test_no_covariate_without_a_choice_of_precision(monkeypatch):
    device = Device()
    device.precision = "fp32"
    monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
    setup = prepare(RunConfig(supernet=parts.NET, data=parts.TASK))
    assert all(objective.covariate is None for objective in setup.objectives)
