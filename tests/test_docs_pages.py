"""The pages of docs/: every block is run or says why not, and nothing is missing from them."""

import importlib.util
import os
import re
import runpy
import subprocess
import sys

import pytest

import hwsearch
from tests.documents import LANGUAGES, PROGRAMS, ROOT, blocks, check_options, pages, run_page

ALL = [block for page in pages() for block in blocks(page)]
SHELL = [block for block in ALL if block.language == "sh"]
# What is run by more than parsing takes minutes for these.
QUICK = ("measuring.md", "index.md", "python.md", "comparison.md", "cli.md")
RUNNABLE = [page for page in pages() if page.parent.name == "docs"]
README = ROOT / "README.md"  # tests/test_docs.py runs its Python
BUILD = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]


@pytest.mark.parametrize("block", ALL, ids=str)
def test_every_block_is_of_a_known_kind(block):
    assert block.language in LANGUAGES
    if block.language == "python":
        compile(block.text, str(block), "exec")
    if block.language == "text":
        first = block.text.split(maxsplit=1)[0]
        listed = block.text.startswith("hwsearch ")
        assert first not in PROGRAMS or listed, f"{block} is for a shell, and nobody runs it"


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_command_has_the_options_that_it_is_given(block):
    for words in block.commands:
        check_options(words)


@pytest.mark.parametrize("block", [block for block in ALL if block.not_run], ids=str)
def test_what_is_not_run_says_why(block):
    assert len(block.not_run.split()) >= 3


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=page.name, marks=[] if page.name in QUICK else pytest.mark.slow)
        for page in RUNNABLE
    ],
)
def test_a_page_runs_from_its_beginning_to_its_end(reader, page):
    run_page(blocks(page))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_readmes_commands_run(reader):
    run_page([block for block in blocks(README) if block.language == "sh"])


def test_the_reference_of_commands_is_up_to_date():
    written = runpy.run_path(str(ROOT / "tools" / "write_cli_reference.py"))
    text = written["PAGE"].read_text(encoding="utf-8")
    assert text == written["reference"](), "run: python tools/write_cli_reference.py"
    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert text == written["settings_page"](), "run: python tools/write_cli_reference.py"


def test_the_reference_of_python_has_every_name():
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^::: [\w.]+\.(\w+)$", text, re.MULTILINE))
    for members in re.findall(r"members: \[(.+)\]", text):
        named |= set(members.split(", "))
    assert set(hwsearch.__all__) <= named


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    assert {page.name for page in RUNNABLE} == listed


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra docs")
def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    process = subprocess.run(
        [*BUILD, "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},  # what a theme's makers announce
        capture_output=True,
        text=True,
    )
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
    for page in tmp_path.glob("*.html"):
        fetched = re.findall(r"<(?:script|img|iframe)[^>]* src=\"([^\"]+)", page.read_text())
        fetched += re.findall(r"<link[^>]* href=\"([^\"]+)", page.read_text())
        assert not [each for each in fetched if each.startswith(("http", "//"))], page
