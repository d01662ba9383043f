"""Tools run as ``python tools/X.py`` from a clone, from any directory and without PYTHONPATH."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
SCRIPTS = sorted(TOOLS.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_code_of_the_tests_is_imported_after_the_clone_is_on_the_path(script):
    modules = [
        name
        for node in ast.parse(script.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [n.name for n in node.names]
        )
    ]
    assert not any(name.split(".")[0] == "tools" for name in modules)
    of_tests = [place for place, name in enumerate(modules) if name.split(".")[0] == "tests"]
    if of_tests:
        assert modules.index("clone") < of_tests[0]


@pytest.mark.parametrize("name", ["fuzz", "bench_limit", "check_gpu"])
def test_a_tool_starts_elsewhere(name, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(TOOLS / f"{name}.py"), "--help"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {name}.py")
