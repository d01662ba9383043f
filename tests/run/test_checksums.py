"""A flipped bit in any file of a run is found."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

import hwsearch
from hwsearch import Run
from hwsearch.cli import app
from hwsearch.run.outcome import CHECKSUMS, damaged_files

pytestmark = pytest.mark.usefixtures("quick_infer", "device")
REDRAWN = (".png", ".html")
FLIPS = 40


@pytest.fixture(scope="module")
def finished(unbroken):
    return unbroken


@pytest.fixture
def copied(finished, tmp_path):
    return shutil.copytree(finished.folder, tmp_path / "run")


def files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix not in REDRAWN)


def flip(path, bit):
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content))


def verify(folder):
    result = CliRunner().invoke(app, ["verify", str(folder), "--json"])
    return result.exit_code, json.loads(result.stdout) if result.stdout else result.stderr


def test_it_lists_all_that_is_not_drawn(finished):
    listed = {
        line.split("  ")[1] for line in (finished.folder / CHECKSUMS).read_text().splitlines()
    }
    names = {p.relative_to(finished.folder).as_posix() for p in files(finished.folder)}
    assert listed == names - {CHECKSUMS}
    for name in ("trials.sqlite", "config.toml", "front.csv", "search.json"):
        assert name in listed


def test_other_tools_read_it(finished):
    done = subprocess.run(
        ["sha256sum", "-c", CHECKSUMS], cwd=finished.folder, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_looking_at_a_run_changes_nothing_in_it(copied):
    run = Run(copied)
    assert len(run.trials)
    assert len(run.measurements())
    assert len(run.front)
    run.export("knee")
    assert damaged_files(copied) == {}


def test_every_flipped_bit_is_found(copied):
    rng = np.random.default_rng(0)
    for path in files(copied):
        content, name = path.read_bytes(), path.relative_to(copied).as_posix()
        for bit in rng.choice(8 * len(content), min(FLIPS, 8 * len(content)), replace=False):
            flip(path, int(bit))
            found = damaged_files(copied)
            assert found, f"bit {bit} of {name}"
            assert name in found or name == CHECKSUMS
            path.write_bytes(content)
    assert damaged_files(copied) == {}


def test_verify_says_which_file_it_is(copied, finished):
    for path in files(copied):
        content, name = path.read_bytes(), path.relative_to(copied).as_posix()
        flip(path, 4 * len(content))
        code, found = verify(copied)
        assert code in (1, 2)
        if code == 1 and name != CHECKSUMS:
            key = path.parent.name if name.startswith("subnets/") else name
            assert found[key] is not None, name
            assert {k for k, why in found.items() if why} == {key}
        path.write_bytes(content)
    assert verify(copied) == (0, dict.fromkeys(finished.front["key"]))


def test_a_missing_file_is_found(copied):
    (copied / "search.json").unlink()
    assert verify(copied)[1]["search.json"] == "it is missing"


def test_a_list_that_names_files_elsewhere_is_damaged_and_they_are_not_read(copied, tmp_path):
    (tmp_path / "secret").write_text("secret")
    with (copied / CHECKSUMS).open("a") as file:
        file.write(f"{'0' * 64}  ../secret\n")
    assert damaged_files(copied)[CHECKSUMS].startswith("it is damaged: ")
    assert "../secret" not in damaged_files(copied)


def test_a_run_of_an_earlier_version_has_none(copied):
    (copied / CHECKSUMS).unlink()
    code, found = verify(copied)
    assert (code, set(found.values())) == (0, {None})


def test_a_run_that_goes_on_has_a_new_one(copied):
    before = (copied / CHECKSUMS).read_text()
    hwsearch.resume(copied, budget=10)
    assert (copied / CHECKSUMS).read_text() != before
    assert damaged_files(copied) == {}
