"""What README and CONTRIBUTING say is run, or compared with what there is."""

import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hwsearch
from hwsearch.cli import app
from tests.documents import blocks, run_page

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands]
COMMANDS += [group.name for group in app.registered_groups]


# What the tests below run, each by a text that it alone holds.
RUN = ("hwsearch.search(", "hwsearch.optimize(", "from_ofa(", "find_table(")
RUN += ("FAMILY = ChainFamily(", "check_supernet(FAMILY", "class MyNet")


def block_with(text: str) -> str:
    """Return the one Python block of the README that holds a text."""
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if text in b]
    return block


def test_the_python_example_runs(reader):
    (block,) = [each for each in blocks(ROOT / "README.md") if "hwsearch.search(" in each.text]
    namespace = run_page([block])
    assert namespace["folders"][0].joinpath("model.onnx").is_file()
    assert len(namespace["run"].trials) == 4


def test_the_optimiser_example_runs():
    namespace: dict = {}
    exec(compile(block_with("hwsearch.optimize("), "README", "exec"), namespace)
    assert (namespace["result"].front["cost"] <= 64).all()


def test_the_configurations_example_runs():
    namespace: dict = {}
    exec(compile(block_with("from_ofa("), "README", "exec"), namespace)
    assert namespace["archs"][0]["stage3.depth"] == 4
    assert namespace["optimizer"].history.told == namespace["archs"]


def test_the_table_example_runs(capsys):
    exec(compile(block_with("find_table("), "README", "exec"), {})
    assert capsys.readouterr().out.count("array(") == 2


@pytest.mark.timeout(120)
def test_the_family_example_keeps_its_promises(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = block_with("FAMILY = ChainFamily(")
    assert len(code.splitlines()) <= 40
    Path("mobile.py").write_text(code, encoding="utf-8")
    net = hwsearch.load_supernet("mobile:load", "random:0")  # also puts this folder on the path
    assert net.space.size == (6 + 6**2 + 6**3) ** 3
    exec(compile(block_with("check_supernet(FAMILY"), "README", "exec"), {})


@pytest.mark.timeout(120)
def test_the_supernet_example_goes_all_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mynet.py").write_text(block_with("class MyNet"), encoding="utf-8")
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("search", "report"):
        arrays[f"{split}.features"] = rng.standard_normal((40, 20)).astype(np.float32)
        arrays[f"{split}.target"] = rng.integers(0, 4, 40)
    np.savez("mine.npz", **arrays)
    run = hwsearch.search(
        "mynet:load", device="scripted", data="npz:mine.npz", budget=3, out="run"
    )
    assert set(run.verify().values()) == {None}


def test_these_are_all_python_blocks():
    found = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert sorted(found) == sorted(block_with(text) for text in RUN)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_readme_and_has_help(command):
    assert f"hwsearch {command}" in README
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert f"hwsearch {command}" in shown.output, "its help shows an example"


def test_the_readme_names_no_command_that_is_not_there():
    named = set(re.findall(r"^    hwsearch (\w+)", README, re.MULTILINE))
    assert named <= set(COMMANDS)


def test_files_that_documents_point_to_exist():
    for document in ("README.md", "CONTRIBUTING.md", "docs/benchmarks.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for path in re.findall(r"`((?:hwsearch|tests|tools|docs)/[\w./-]+)`", text):
            if "NAME" in path:  # stands for a reader's own
                continue
            assert (ROOT / path).exists(), f"{document} names {path}"
