"""Code blocks of the documents: found, checked for their options, and run as a reader would."""

import contextlib
import io
import re
import shlex
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from hwsearch.cli import app
from hwsearch.kit.main import main as kit_main

ROOT = Path(__file__).parents[1]
PROGRAMS = ("hwsearch", "python", "pip", "pytest", "ruff", "mypy", "mkdocs")
LANGUAGES = ("sh", "python", "toml", "text")
MARK = re.compile(r"<!-- not run: (.+) -->")
_FENCE = re.compile(r"```(\w*)(?: title=\"([^\"]+)\")?\s*$")
# A reader's machine is measured; here a device without a clock answers, and few are evaluated.
BUDGET = 4
LIMIT = re.compile(r"\blatency <= [\d.]+")
DEVICE = re.compile(r"ort-cpu(:threads=\d+)?(?![\w-])")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of code.

    Attributes:
        page: Its document, relative to the repository.
        line: Where it begins.
        language: Of the fence; ``sh`` or ``text`` where it is indented instead.
        title: The file that it is, or empty.
        text: What is in it.
        not_run: Why it is not run, or empty.
    """

    page: str
    line: int
    language: str
    title: str
    text: str
    not_run: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block."""
        lines = self.text.replace("\\\n", " ").splitlines() if self.language == "sh" else ()
        split = (shlex.split(line, comments=True) for line in lines)
        return [part for words in split for part in _simple(words) if part]


def pages() -> list[Path]:
    """Every document whose blocks are run."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """All code blocks of a document, fenced or indented."""
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    number, marked = 0, ""
    while number < len(lines):
        line, start = lines[number], number + 1
        if mark := MARK.fullmatch(line.strip()):
            marked = mark[1]
        elif fence := _FENCE.match(line):
            end = lines.index("```", number + 1)
            text = "\n".join(lines[number + 1 : end])
            found.append(_block(page, start, fence[1] or "text", fence[2] or "", text, marked))
            number, marked = end, ""
        elif line.startswith("    ") and not lines[number - 1].strip():
            end = _end_of_indented(lines, number)
            text = "\n".join(each.strip() for each in lines[number:end])
            found.append(_block(page, start, _kind(text), "", text, marked))
            number, marked = end - 1, ""
        elif line.strip():
            marked = ""
        number += 1
    return found


def check_options(words: Sequence[str]) -> None:
    """Raise for a command that no program here takes, or with options that it has not."""
    if words[0] == "hwsearch":
        _check_hwsearch(words[1:])
    elif words[:2] == ["pip", "install"]:
        for extras in re.findall(r"\[(.+)\]", " ".join(words)):
            assert set(extras.split(",")) <= _project()["optional-dependencies"].keys()
    elif words[0] not in PROGRAMS:
        raise ValueError(f"unknown program {words[0]!r}")


def run_page(found: Sequence[Block]) -> dict[str, Any]:
    """Run the blocks of a page in its order, in the working directory.

    Python blocks share their names, which are returned, as in one session; one with a title is
    written to that file.
    """
    namespace: dict[str, Any] = {}
    before = set(sys.modules)
    sys.path.insert(0, str(Path.cwd()))  # as in a session that begins here
    try:
        for block in found:
            if not block.not_run:
                RUN.get(block.language, lambda *_: None)(block, namespace)
    finally:
        sys.path.remove(str(Path.cwd()))
        for name in set(sys.modules) - before:
            if getattr(sys.modules[name], "__file__", None) in _written(found):
                del sys.modules[name]
    return namespace


def _run_python(block: Block, namespace: dict[str, Any]) -> None:
    if block.title:
        Path(block.title).write_text(block.text + "\n", encoding="utf-8")
        return
    text = re.sub(r"\bbudget=\d+", f"budget={BUDGET}", DEVICE.sub("scripted", block.text))
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, str(block), "exec"), namespace)


def _run_toml(block: Block, _: Mapping[str, Any]) -> None:
    tomllib.loads(block.text)
    if block.title:
        text = re.sub(r"^budget = \d+", f"budget = {BUDGET}", block.text, flags=re.MULTILINE)
        text = LIMIT.sub("latency <= 100", DEVICE.sub("scripted", text))
        Path(block.title).write_text(text, encoding="utf-8")


def _run_shell(block: Block, _: Mapping[str, Any]) -> None:
    for words in block.commands:
        if words[:3] == ["python", "-m", "hwsearch"]:
            words = words[2:]
        if words[0] == "hwsearch":
            result = CliRunner().invoke(app, _in_the_small(words[1:]))
            assert result.exit_code == 0, f"{block}: {shlex.join(words)}: {result.output}"
        elif words[0] == "python":
            assert kit_main(_in_the_small(words[2:]), Path(words[1])) == 0, str(block)
        else:
            assert words[0] in PROGRAMS, str(block)


RUN: Mapping[str, Callable[[Block, dict[str, Any]], None]] = {
    "python": _run_python,
    "toml": _run_toml,
    "sh": _run_shell,
}


def _in_the_small(words: Sequence[str]) -> list[str]:
    """The same command for a device without a clock, with a budget of few evaluations."""
    given = [LIMIT.sub("latency <= 100", DEVICE.sub("scripted", word)) for word in words]
    given = [each for word in given for each in _expanded(word)]
    for n, word in enumerate(given[:-1]):
        if word == "--budget":
            given[n + 1] = str(BUDGET)
    if given[0] == "search" and "--budget" not in given and "hwsearch.toml" not in _here():
        given += ["--budget", str(BUDGET)]
    if given[0] in ("search", "measure") and "--device" not in given:
        given += ["--device", "scripted"]
    return given


def _expanded(word: str) -> list[str]:
    """What a shell makes of a word with a star in it."""
    if "*" not in word or "=" in word or " " in word:
        return [word]
    return sorted(map(str, Path().glob(word))) or [word]


def _here() -> set[str]:
    return {path.name for path in Path().iterdir()}


def _check_hwsearch(words: Sequence[str]) -> None:
    command: Any = typer.main.get_command(app)
    _silence(command)
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            command.main(list(words), prog_name="hwsearch", standalone_mode=False)
        except typer.Exit:
            return


def _silence(command: Any) -> None:
    """Let a command take its options and do nothing, not even what an option does at once."""
    command.callback = None
    for parameter in command.params:
        parameter.callback = None
    for inner in getattr(command, "commands", {}).values():
        _silence(inner)


def _simple(words: Sequence[str]) -> Iterator[list[str]]:
    """The commands of a line that are joined by ``&&``."""
    part: list[str] = []
    for word in words:
        if word == "&&":
            yield part
            part = []
        else:
            part.append(word)
    yield part


def _kind(text: str) -> str:
    """Tell commands from output and lists: ``hwsearch search     what it does`` is a list."""
    first = text.split(maxsplit=1)[0]
    listed = re.match(r"hwsearch \w+  +\w", text)
    return "sh" if first in PROGRAMS and not listed else "text"


def _end_of_indented(lines: Sequence[str], number: int) -> int:
    while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
        number += 1
    while not lines[number - 1].strip():
        number -= 1
    return number


def _block(page: Path, line: int, language: str, title: str, text: str, marked: str) -> Block:
    name = str(page.relative_to(ROOT))
    return Block(page=name, line=line, language=language, title=title, text=text, not_run=marked)


def _written(found: Sequence[Block]) -> set[str]:
    return {str(Path(block.title).absolute()) for block in found if block.title}


def _project() -> dict[str, Any]:
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project
