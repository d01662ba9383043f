"""Precision in a report: one picture, one effect, and the front of files of one precision."""

import json

import numpy as np
import pytest

from hwsearch.architectures import stage_lines
from hwsearch.choices import Choice
from hwsearch.objectives import to_losses
from hwsearch.precision import PrecisionSpace
from hwsearch.report.analysis import shared
from hwsearch.report.figures import COLOURS
from hwsearch.report.front_figure import draw_front, front_figure
from hwsearch.report.importance import importances
from hwsearch.report.page_data import page_data
from hwsearch.report.precisions import block_of, precision_columns, whole_front
from hwsearch.report.run_data import read_run_data
from tests.report.made_run import made_run, space_of

BLOCKS = ("stem", "stage1.block1", "head")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mixed"
    made = PrecisionSpace(space_of(), ("fp32", "int8"), dict.fromkeys(BLOCKS))
    return read_run_data(made_run(folder, 60, space=made.space))


def test_choices_of_precision_are_known(data):
    both = ("int8", "fp32")
    assert block_of(Choice("precision.stage1.block1", both)) == "stage1.block1"
    assert block_of(Choice("precision", both)) == ""
    assert block_of(Choice("precision_of.kernel", both)) is None
    assert block_of(Choice("precision", (8, 16))) is None  # of a network's own
    assert len(precision_columns(data.space.choices)) == 3
    told = {each["name"]: each["precision"] for each in page_data(data)["choices"]}
    assert told["precision.head"] == "head"
    assert told["resolution"] is None


def test_the_front_of_one_precision_is_that_of_these_trials(data):
    numbers, values = whole_front(data)
    assert numbers
    whole = [
        n
        for n in data.finished
        if len({data.trials[n].choices[f"precision.{name}"] for name in BLOCKS}) == 1
    ]
    assert set(numbers) <= set(whole)
    members = data.members_by_key
    table = {
        n: [
            members.get(data.trials[n].key, {}).get(o.name, data.values[o.name][n])
            for o in data.objectives
        ]
        for n in whole
    }
    assert [table[n] for n in numbers] == np.column_stack(list(values.values())).tolist()
    losses = {n: to_losses([row], data.objectives)[0] for n, row in table.items()}
    for number in whole:
        beaten = any((losses[other] < losses[number]).all() for other in whole)
        assert not (beaten and number in numbers)


def test_the_line_says_how_much_of_it_is_confirmed(data, tmp_path):
    figure = front_figure(data)
    (line,) = [each for each in figure["data"] if each["meta"] == "second"]
    numbers, _ = whole_front(data)
    confirmed = sum(data.trials[n].key in data.members_by_key for n in numbers)
    known = f"{confirmed or 'none'} confirmed"
    assert line["name"] == f"one precision throughout ({len(numbers)}), {known}"
    assert line["x"] == sorted(line["x"])
    assert set(line["customdata"]) == set(numbers)
    assert "second" in COLOURS
    draw_front(tmp_path / "front.png", data)


def test_runs_without_precision_have_no_such_line(run_data):
    assert whole_front(run_data["front"]) == ([], {})
    assert all(each["meta"] != "second" for each in front_figure(run_data["front"])["data"])


def test_blocks_have_one_effect_together(data):
    for found in importances(data):
        names = [effect.choice for effect in found.effects if "precision" in effect.choice]
        assert names == ["precision, of all 3 blocks"]


def test_blocks_that_agree_are_told_once(data):
    told = [name for name, *_ in shared(data)["same"] if name.startswith("precision")]
    assert len(told) <= 2
    assert json.dumps(page_data(data))


def test_an_architecture_has_one_line_of_precision():
    choices = {"stem.width": 8, "precision.stem": "fp32", "precision.a.b": "int8"}
    assert stage_lines(choices | {"precision.head": "int8"}) == [
        ("stem", "width 8"),
        ("precision", "int8, fp32 in stem"),
    ]
    assert stage_lines({"precision": "int8"}) == [("", "precision int8")]
