"""A search killed at any moment and resumed ends where an unbroken one does."""

import json
import sqlite3
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hwsearch import Run
from hwsearch.cli import app
from tests.run.killed import BUDGET, MOMENTS, kill_searches

pytestmark = pytest.mark.usefixtures("quick_infer")
ROOT = Path(__file__).parents[2]
TIMED = ("latency", "search")

# Moment -> trials done and open, and search measurements stored, when the kill came.
LEFT = {
    "beginning": (0, 0, 0),
    "proposed": (0, 4, 0),
    "started": (4, 4, 8),
    "scoring": (8, 4, 22),
    "timing": (8, 4, 16),
    "finishing": (11, 1, 24),
    "between-rounds": (12, 0, 24),
    "confirming": (16, 0, 32),
    "confirmed": (16, 0, 32),
    "exporting": (16, 0, 32),
    "exported": (16, 0, 32),
}


@pytest.fixture(scope="module")
def unbroken(first):
    assert len(first.trials) == BUDGET
    return first


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return kill_searches(tmp_path_factory)


def measured(run):
    """Every measurement by its identity, without what it cost."""
    found = {}
    for m in run.measurements():
        assert m.identity not in found
        samples = None if m.samples is None else m.samples.tobytes()
        found[m.identity] = (m.value, m.low, m.high, m.count, samples, dict(m.details))
    return found


def stored(run):
    with sqlite3.connect(run.folder / "trials.sqlite") as connection:
        (sound,) = connection.execute("PRAGMA integrity_check").fetchone()
        rows = connection.execute("SELECT * FROM trials ORDER BY number").fetchall()
    connection.close()
    return sound, rows


def exported(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))
    }


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", MOMENTS)
def test_resumed_run_equals_the_unbroken_one(unbroken, killed, device, moment):
    run = Run(killed / moment)
    states = Counter(run.trials["state"])
    before = measured(run)
    n_searched = sum(purpose == "search" for *_, purpose in before)
    n_done = states.pop("done", 0)
    assert (n_done, states.total(), n_searched) == LEFT[moment]
    assert not run.finished
    # A subnet under its own name is complete, whenever the kill came.
    for folder in run.folder.glob("subnets/[!.]*"):
        assert len(list(folder.iterdir())) == 4

    result = CliRunner().invoke(app, ["resume", str(run.folder), "--json"])
    assert result.exit_code == 0, result.stderr
    assert [row["key"] for row in json.loads(result.stdout)] == unbroken.front["key"].tolist()
    sound, trials = stored(run)
    assert sound == "ok"
    assert trials == stored(unbroken)[1]
    assert measured(run) == measured(unbroken)
    for name in ("front.csv", "front.png"):
        assert (run.folder / name).read_bytes() == (unbroken.folder / name).read_bytes()
    assert exported(run.folder / "subnets") == exported(unbroken.folder / "subnets")
    assert {path.name for path in run.folder.iterdir()} == {
        path.name for path in unbroken.folder.iterdir()
    }
    timed = {key for key, quantity, _, purpose in before if (quantity, purpose) == TIMED}
    bridges = {m.key for m in run.measurements() if m.purpose == "bridge"}
    assert not timed & {key for phase, key in device.timed if phase == "search"} - bridges
    if any(purpose == "confirm" for *_, purpose in before):
        assert not any(phase == "confirm" for phase, _ in device.timed)
