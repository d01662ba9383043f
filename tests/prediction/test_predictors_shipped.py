"""What lies in predictors/, and the tool that makes it."""

import json
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import kendalltau

import hwsearch
from hwsearch.errors import InputError
from hwsearch.prediction.folder import CARD
from hwsearch.prediction.predictor import load_predictor
from tests.optimizer.problems import Tabular

ROOT = Path(__file__).parents[2]
PREDICTORS, README = ROOT / "predictors", ROOT / "predictors" / "README.md"
FOLDERS = sorted(card.parent for card in PREDICTORS.glob(f"*/*/{CARD}"))
ROWS = ROOT.parent / "shared" / "bench" / "ofa_mbv3_w10_imagenet.csv"
OFA = PREDICTORS / "ofa-mbv3-w1.0" / "top1"
NETS = {
    "ofa-mbv3-w1.0": lambda: hwsearch.load_supernet("ofa-mbv3-w1.0", "random:0"),
    "cifar10-resnet": lambda: hwsearch.load_supernet("cifar10-resnet"),
}


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(ROOT / "tools" / "fit_predictor.py"))


def test_both_supernets_have_one():
    assert [folder.parent.name for folder in FOLDERS] == ["cifar10-resnet", "ofa-mbv3-w1.0"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
class TestShipped:
    def test_fits_its_supernet_and_says_where_it_is_from(self, folder):
        net = NETS[folder.parent.name]()
        predictor = load_predictor(folder, net.space)
        facts = predictor.facts
        assert (facts["supernet"], facts["objective"]) == (folder.parent.name, folder.name)
        assert facts["rows"]["source"]
        assert facts["rows"]["licence"]
        assert facts["not_for"]
        held_out = facts["held_out_runs"]
        assert held_out["kendall_tau"] > 0.7
        assert 0.8 < held_out["coverage_of_95_intervals"] <= 1.0
        ends, deviation = predictor.predict(net.space.sample_spread(2, 0))
        assert ends[0] < ends[1] < facts["rows"]["highest"] + 3 * deviation[1]

    def test_predicts_plausible_values_everywhere(self, folder):
        net = NETS[folder.parent.name]()
        rows = json.loads((folder / CARD).read_text())["rows"]
        mean, deviation = load_predictor(folder, net.space).predict(net.space.sample(2000, 0))
        margin = 0.2 * (rows["highest"] - rows["lowest"])
        assert (mean > rows["lowest"] - margin).all()
        assert (mean < rows["highest"] + margin).all()
        assert (deviation > 0).all()

    def test_holds_no_row_and_is_small(self, folder):
        sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
        assert set(sizes) == {CARD, "parameters.npz"}
        assert sum(sizes.values()) < 200_000

    def test_is_in_the_readme_with_the_figures_of_its_card(self, folder):
        held_out = json.loads((folder / CARD).read_text())["held_out_runs"]
        (line,) = re.findall(
            rf"^\| `{folder.parent.name}/{folder.name}` .*", README.read_text(), re.MULTILINE
        )
        share = f"{held_out['coverage_of_95_intervals']:.1%}"
        for figure in (f"{held_out['kendall_tau']:.3f}", f"{held_out['mae']:.2f}", share):
            assert figure in line


def test_the_resolution_that_no_row_had_is_refused():
    net = hwsearch.load_supernet("ofa-mbv3-w1.0", "random:0")
    wider = net.restrict(only=["resolution in 192,224"])
    with pytest.raises(InputError, match=r"'resolution' at 224 only, not at 192; leave that out"):
        load_predictor(OFA, wider.space)


@pytest.mark.skipif(not ROWS.is_file(), reason="../shared/bench is not there")
@pytest.mark.timeout(180)
def test_the_card_says_what_the_tool_finds(tool):
    """For one of the searches, predicted from the others."""
    net = NETS["ofa-mbv3-w1.0"]()
    rows = tool["read_rows"]([ROWS], net, "top1")
    facts = load_predictor(OFA, net.space).facts
    assert facts["rows"]["n_rows"] == len(rows.values)
    run = "evoga_acc"
    split = next((s, h) for s, h in tool["by_run"](rows) if set(h.runs) == {run})
    assert not set(split[0].archs.ids) & set(split[1].archs.ids)
    found = tool["figures"](tool["validate"]("pairwise", iter([split])).score())
    said = facts["held_out_runs"]["by_run"][run]
    for name in ("kendall_tau", "mae", "rmse"):
        assert found[name] == pytest.approx(said[name], abs=0.002)
    assert said["kendall_tau"] > 0.9
    predicted = load_predictor(OFA, net.space).predict_mean(rows.archs)
    assert kendalltau(predicted, rows.values).statistic > 0.97


def test_the_tool_goes_from_trials_to_a_folder(tool, tmp_path, monkeypatch, capsys):
    net = NETS["cifar10-resnet"]()
    files = []
    for seed, name in enumerate(("first", "second")):
        archs = net.space.sample_distinct(60, seed)
        values = Tabular(net.space).values(archs)["quality"]
        lines = [",".join(["number", "state", "top1", *net.space.names])]
        for number, (arch, value) in enumerate(zip(archs, values, strict=True)):
            cells = [arch.mapping.get(choice, "") for choice in net.space.names]
            cells = [f"{cell}.0" if cell != "" else "" for cell in cells]  # as pandas has them
            lines.append(",".join([str(number), "done", repr(float(value)), *cells]))
        lines.append(f"60,failed,{',' * len(net.space.names)}")
        files.append(tmp_path / f"{name}.csv")
        files[-1].write_text("\n".join(lines))
    arguments = ["fit_predictor.py", "cifar10-resnet", *map(str, files), "--source", "made up"]
    arguments += ["--licence", "none", "--out", str(tmp_path / "top1")]
    monkeypatch.setattr(sys, "argv", arguments)
    tool["main"]()
    assert "held_out_runs: kendall_tau" in capsys.readouterr().out
    predictor = load_predictor(tmp_path / "top1", net.space)
    assert predictor.facts["rows"]["runs"] == {"first": 60, "second": 60}
    assert predictor.facts["weights"] == net.digest[:16]
    assert set(predictor.facts["held_out_runs"]["by_run"]) == {"first", "second"}
    asked = net.space.sample(300, 9)
    truth = Tabular(net.space).values(asked)["quality"]
    assert kendalltau(predictor.predict_mean(asked), truth).statistic > 0.85


def test_intervals_are_widened_by_what_the_other_searches_ask_for(tool):
    validated = tool["Validated"](
        runs=np.repeat(["a", "b"], 100),
        values=np.concatenate([np.linspace(-1.0, 1.0, 100), np.linspace(-4.0, 4.0, 100)]),
        mean=np.zeros(200),
        deviation=np.ones(200),
    )
    assert validated.widening(validated.runs == "a") == 1.0
    assert validated.widening(validated.runs == "b") == pytest.approx(4.0 * 0.95 / 1.96, rel=0.02)
    widened = validated.widened()
    assert (widened.deviation[100:] == 1.0).all()
    assert (widened.deviation[:100] > 1.9).all()


def test_the_example_in_the_readme_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict = {}
    exec(compile(code, "README", "exec"), namespace)
    assert namespace["top1"].shape == namespace["deviation"].shape == (1000,)
    assert capsys.readouterr().out
