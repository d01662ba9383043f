"""The picture of the front: its axes, its legend, and names that look like formulas."""

from dataclasses import replace

import matplotlib.figure
import pytest

from hwsearch.report.front_figure import draw_front


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Draw run_data, and return the axes; warnings of matplotlib are errors."""
    figures = []
    save = matplotlib.figure.Figure.savefig

    def saving(figure, *args, **kwargs):
        save(figure, *args, **kwargs)
        figures.append(figure)

    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", saving)

    def draw(run_data):
        draw_front(tmp_path / "front.png", run_data)
        assert (tmp_path / "front.png").read_bytes().startswith(b"\x89PNG")
        return figures.pop().axes[0]

    return draw


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_trials_and_members_are_named_and_axes_have_units(drawn, run_data):
    axes = drawn(run_data["front"])
    known = legend(axes)
    assert [text.split(" (")[0] for text in known] == [
        "trials", "knee", "front on the report samples", "front",
    ]  # fmt: skip
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("latency (ms)", "top1 (%)")
    assert axes.get_title("left") == run_data["front"].run.title


def test_what_is_predicted_says_so(drawn, run_data):
    axes = drawn(run_data["candidates"])
    assert axes.get_ylabel() == "top1 (%), predicted"
    assert any(text.startswith("candidates (") for text in legend(axes))
    assert any(text.endswith("top1 predicted") for text in legend(axes))


def test_strange_names_are_drawn_as_they_are(drawn, run_data):
    drawn(run_data["hostile"])
    known = run_data["front"]
    odd = replace(known.objectives[1], unit="$ms_{x$")
    axes = drawn(replace(known, objectives=(known.objectives[0], odd)))
    assert axes.get_xlabel() == "latency ($ms_{x$)"


def test_one_objective_is_drawn_in_the_order_of_the_trials(drawn, run_data):
    known = run_data["front"]
    axes = drawn(replace(known, objectives=known.objectives[:1]))
    assert axes.get_xlabel() == "trial"
