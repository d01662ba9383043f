"""Where reports go, from Python and from the command line, and what is live in a terminal."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import hwsearch
from hwsearch.cli import app
from hwsearch.report.terminal_view import Layer, terminal_view, text_plot


@pytest.fixture
def own(tmp_path, runs):
    """A copy of a run that may be written into."""
    return hwsearch.Run(shutil.copytree(runs["front"].folder, tmp_path / "own"))


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def shown(run_data, width, height):
    console = Console(width=width, height=height, file=io.StringIO())
    console.print(terminal_view(run_data, width, height))
    return console.file.getvalue().splitlines()


def test_a_report_lies_in_its_run_with_pictures_beside_it(own):
    printed = [Path(line).name for line in invoke("report", own.folder).splitlines()]
    assert printed == ["report.html", "front.png"]
    for name in printed[1:]:
        assert (own.folder / name).read_bytes().startswith(b"\x89PNG")


def test_elsewhere_pictures_have_the_name_of_the_page(own, tmp_path):
    page = own.report(tmp_path / "new" / "mine.html")
    assert {path.name for path in page.parent.iterdir()} == {
        "mine.html", "mine-front.png",
    }  # fmt: skip


def test_several_runs_make_a_comparison(own, runs):
    printed = invoke("report", own.folder, runs["other"].folder).splitlines()
    assert [Path(line).name for line in printed] == ["comparison.html"]


def test_an_unfinished_run_has_a_page_and_no_picture_of_a_front(runs, tmp_path):
    assert invoke(
        "report", runs["unfinished"].folder, "--out", tmp_path / "a.html"
    ).splitlines() == [str(tmp_path / "a.html")]
    assert [path.name for path in tmp_path.iterdir()] == ["a.html"]


def test_a_folder_as_the_page_is_refused(own, tmp_path):
    with pytest.raises(hwsearch.InputError, match="is a folder"):
        own.report(tmp_path)


def test_watch_shows_once_where_there_is_no_terminal(runs):
    said = {"front": "confirmed", "unfinished": "not confirmed", "candidates": "predicted"}
    for name, words in said.items():
        printed = invoke("watch", runs[name].folder)
        assert words in printed
        assert "●" in printed
        assert "4 failed" in printed


def test_the_terminal_view_fits_its_terminal(run_data):
    for name in ("front", "bound", "candidates", "unfinished", "single", "hostile"):
        for width, height in ((80, 24), (120, 40)):
            lines = shown(run_data[name], width, height)
            assert len(lines) <= height, name
            assert max(map(len, lines)) <= width, name


def test_the_limit_stands_in_the_live_plot(run_data):
    assert any("┊" in line for line in shown(run_data["bound"], 80, 30))
    assert not any("┊" in line for line in shown(run_data["front"], 80, 30))


def test_dots_stand_where_they_should():
    corners = Layer(sign="x", style="", x=[0, 10], y=[0, 10])
    lines = text_plot([corners], ("across", "up"), (40, 12)).plain.splitlines()
    rows = [line for line in lines if "│" in line]
    assert rows[0].rstrip().endswith("x")
    assert rows[-1].split("│")[1].startswith(" x") or rows[-1].split("│")[1].startswith("x")
    assert "across" in lines[-1]
    assert lines[0] == "up"


def test_dots_that_are_all_alike_are_drawn():
    one = Layer(sign="x", style="", x=[1.0], y=[0.0])
    assert text_plot([one], ("a", "b"), (30, 8)).plain.count("x") == 1
