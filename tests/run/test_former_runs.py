"""Runs of versions that raced candidates open, are listed and go on."""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.cli import app

pytestmark = pytest.mark.usefixtures("quick_infer")


@pytest.fixture
def raced(unbroken, tmp_path):
    """The run as a former version left it: one loser was dropped by a race."""
    folder = tmp_path / "run"
    shutil.copytree(unbroken.folder, folder)
    config = (folder / "config.toml").read_text()
    assert config.count("[search]\n") == 1
    (folder / "config.toml").write_text(config.replace("[search]\n", "[search]\nrace = true\n"))
    trials = unbroken.trials
    key = next(k for k in trials["key"] if k not in set(unbroken.front["key"]))
    details = json.dumps({"images": 80, "dropped": "dominated", "estimate": 1.0, "deviation": 2.0})
    with closing(sqlite3.connect(folder / "trials.sqlite")) as connection, connection:
        changed = connection.execute(
            "UPDATE measurements SET purpose = 'race', details = ?, context = context || ' 80'"
            " WHERE key = ? AND quantity = 'top1' AND purpose = 'search'",
            (details, key),
        )
        assert changed.rowcount == 1
    return folder, key


def test_it_is_listed(raced, unbroken):
    folder, key = raced
    run = Run(folder)
    row = run.trials.set_index("key").loc[key]
    assert row["state"] == "done"
    assert row[["top1"]].isna().all()
    assert run.front.equals(unbroken.front)
    assert CliRunner().invoke(app, ["front", str(folder)]).exit_code == 0
    run.report()


def test_it_goes_on_to_the_same_front(raced, unbroken, device):
    """What was dropped is scored on all images now."""
    folder, key = raced
    run = hwsearch.resume(folder, budget=parts.SHORT["budget"] + 1)
    assert len(run.trials) == parts.SHORT["budget"] + 1
    whole = unbroken.trials.set_index("key")["top1"]
    assert run.trials.set_index("key")["top1"][key] == whole[key]
    again = {m.purpose for m in run.measurements() if (m.key, m.quantity) == (key, "top1")}
    assert again == {"race", "search"}
