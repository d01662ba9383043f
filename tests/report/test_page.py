"""The page as text: one file, whole, and inert whatever a run is called."""

import json
import re

import pytest

from hwsearch.report.write import as_script_text, page_of
from tests.report.conftest import HOSTILE


@pytest.fixture(scope="module")
def pages(run_data):
    return {name: page_of([known]) for name, known in run_data.items()}


def contents_of(page):
    found = re.findall(r'<script type="application/json" id="contents">(.*?)</script>', page)
    assert len(found) == 1
    return json.loads(found[0])


def test_every_kind_of_run_has_a_page(pages):
    for name, page in pages.items():
        (run,) = contents_of(page)["runs"]
        assert run["folder"].endswith(run["name"])
        assert page.count("</html>") == 1
        assert len(page) < 8e6, name


def test_nothing_is_loaded(pages):
    own = pages["front"].replace(_plotly(pages["front"]), "")
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", own)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", own)
    assert "default-src 'none'" in own


def test_a_strangers_text_stays_text(pages):
    page = pages["hostile"]
    own = page.replace(_plotly(page), "")
    assert own.count("<script") == pages["front"].replace(_plotly(page), "").count("<script")
    assert "<img" not in own
    (run,) = contents_of(page)["runs"]
    assert run["header"]["supernet"] == HOSTILE
    assert HOSTILE in run["notes"]
    assert HOSTILE in run["trials"]["reason"].values()


def test_texts_that_plotly_reads_are_escaped(pages):
    (run,) = contents_of(pages["hostile"])["runs"]
    for each in run["importance"]["objectives"]:
        for bar in each["figure"]["data"]:
            assert not any("<" in name for name in bar["y"])


@pytest.mark.parametrize("text", ["</script>", "<!--<script>", "\u2028", "\"'&<>"])
def test_json_never_ends_its_element(text):
    written = as_script_text({"a": text})
    assert not set("<>&\u2028") & set(written)
    assert json.loads(written) == {"a": text}


def test_numbers_are_those_of_the_run(runs, pages):
    (run,) = contents_of(pages["front"])["runs"]
    front = runs["front"].front.set_index("key")
    assert len(run["members"]) == len(front)
    for number, member in run["members"].items():
        row = front.loc[run["trials"]["key"][int(number)]]
        told = {(name, how): value for name, value, *_, how in member["numbers"]}
        assert told["top1", "measured on search images"] == pytest.approx(row["top1"], rel=1e-5)
        assert told["top1", "measured on report images"] == pytest.approx(
            row["top1_report"], rel=1e-5
        )
        assert told["latency", "measured"] == pytest.approx(row["latency"], rel=1e-5)
        assert told["macs", "exact"] == pytest.approx(row["macs"], rel=1e-5)
        (network, session, shell) = (text for _, text in member["load"])
        assert f".subnet({row.name!r})" in network
        assert "model.onnx" in session
        assert "infer.py" in shell


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("elastic", "safetensors.numpy.load_file('{folder}/weights.safetensors')"),
        ("module", "hwsearch.cut(module, '{folder}', net)"),
    ],
)
def test_members_of_elastic_models_load_as_what_they_came_from(runs, pages, name, says):
    (run,) = contents_of(pages[name])["runs"]
    for number, member in run["members"].items():
        folder = runs[name].folder / "subnets" / run["trials"]["key"][int(number)]
        loaded = member["load"][0][1]
        assert says.format(folder=folder) in loaded
        assert ".subnet(" not in loaded


def test_predicted_numbers_say_so(pages):
    (run,) = contents_of(pages["candidates"])["runs"]
    assert run["kind"] == "candidates"
    for member in run["members"].values():
        assert {how for name, *_, how in member["numbers"] if name == "top1"} == {"predicted"}
        assert member["files"] == ["card.json"]
    (front,) = [trace for trace in run["fronts"]["latency"]["data"] if trace["meta"] == "front"]
    assert "top1 predicted" in front["name"]
    assert any("candidates, not a front" in note for note in run["notes"])


def test_the_limit_is_drawn_where_it_is(pages):
    (run,) = contents_of(pages["bound"])["runs"]
    (line,) = run["fronts"]["latency"]["layout"]["shapes"]
    assert (line["x0"], line["x1"]) == (6, 6)
    (label,) = run["fronts"]["latency"]["layout"]["annotations"]
    assert label["text"] == "latency &lt;= 6"


def test_inactive_choices_and_unknown_numbers_are_marked(run_data, pages):
    (run,) = contents_of(pages["front"])["runs"]
    known = run_data["front"]
    for number, indices in enumerate(run["trials"]["indices"]):
        assert [index < 0 for index in indices] == (~known.archs.active[number]).tolist()
    assert None in run["trials"]["values"]["top1"]


def test_trials_have_the_only_objective_where_there_is_one(pages):
    (run,) = contents_of(pages["single"])["runs"]
    assert list(run["fronts"]) == ["trial"]


def test_several_runs_are_compared(run_data):
    contents = contents_of(page_of([run_data["front"], run_data["other"]]))
    assert len(contents["runs"]) == 2
    assert len(contents["compare"]["transfers"]) == 2


def _plotly(page):
    """The library, which is somebody else's text."""
    start = page.index("<script>", page.index('id="contents"')) + len("<script>")
    return page[start : page.index("</script>", start)]
