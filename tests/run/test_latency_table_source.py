import json
import shutil
import tomllib

import pytest
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch.cli import app
from hwsearch.errors import InputError
from hwsearch.run.config import RunConfig
from hwsearch.run.profile import make_table
from hwsearch.run.setup import prepare
from hwsearch.run.value_sources.registry import with_sources
from hwsearch.tables import FOLDER, LatencyTable, content_digest, file_name
from tests.run.profiled_device import MINIATURE, Profiled, latency_of


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where the user's table of the miniature on the scripted device lies."""
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
    name = file_name(MINIATURE.card.name, "scripted")
    return tmp_path / "home" / FOLDER / name


@pytest.fixture
def device(monkeypatch):
    """One whose searched latencies are the sums that tables hold."""
    device = parts.InProcess(latency_of)
    monkeypatch.setattr("hwsearch.run.setup.load_device", lambda spec: device)
    monkeypatch.setattr("hwsearch.devices.load_device", lambda spec: device)
    return device


@pytest.fixture(autouse=True)
def _quick(monkeypatch, quick_infer):
    monkeypatch.setattr("hwsearch.run.profile.VALIDATING", 4)


def command(*args):
    return CliRunner().invoke(app, list(args))


def search(out, **changes):
    watcher = parts.Watcher()
    settings = {**parts.SETTINGS, "budget": 4, **changes}
    return hwsearch.search(out=out, progress=watcher, **settings), watcher.notes


def offered(**settings):
    """The parts of a new search, with its sources."""
    return with_sources(prepare(RunConfig(supernet=parts.NET, data=parts.TASK, **settings)))


def recorded(run):
    return tomllib.loads((run.folder / "config.toml").read_text())["recorded"]["latency_table"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A table that was made on the device that searches."""
    path, maker = tmp_path_factory.mktemp("made") / "table.json", Profiled()
    maker.fingerprint = parts.InProcess(latency_of).fingerprint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hwsearch.run.profile.VALIDATING", 4)
        make_table(MINIATURE, maker, path)
    return path


@pytest.fixture
def made(table, path, device):
    path.parent.mkdir(parents=True)
    return shutil.copy(table, path)


def test_a_search_chooses_by_the_table_and_measures(made, path, device, tmp_path):
    run, notes = search(tmp_path / "run", budget=12)
    assert any(note.startswith(f"latency is predicted from {path.name}") for note in notes)
    assert not any("measured elsewhere" in note for note in notes)
    assert recorded(run)["name"] == path.name
    searched = [key for phase, key in device.timed if phase == "search"]
    bridges = [m.key for m in run.measurements() if m.purpose == "bridge"]
    assert sorted(searched) == sorted([*run.trials["key"], *bridges])
    assert run.front["latency"].tolist() == pytest.approx(
        [latency_of(key) for key in run.front["key"]]
    )


def test_without_a_table_nothing_is_said_or_recorded(path, device):
    setup = offered()
    assert setup.notes == ()
    assert setup.recorded()["latency_table"] == {}


def test_a_search_without_latency_needs_none(made, device):
    assert offered(objectives=("top1", "macs")).sources == ()


def test_a_table_of_another_machine_is_only_a_start(path, device):
    maker = Profiled()
    maker.fingerprint = lambda: {**device.fingerprint(), "cpu": "a faster one"}
    make_table(MINIATURE, maker, path)
    (note,) = offered().notes
    assert "measured elsewhere (cpu was a faster one, is scripted)" in note


def test_a_table_that_lacks_specs_is_left_out_with_the_command(path, device):
    make_table(MINIATURE.restrict(only=["stage2.width in 8"]), Profiled(), path)
    setup = offered()
    (note,) = setup.notes
    assert note.startswith("latency is predicted from measured")
    assert "block specs" in note
    assert "complete it by 'hwsearch profile" in note
    assert setup.recorded()["latency_table"] == {}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"schema": 9}, "schema 9"),
        ({"space": "0000"}, "search space '0000'"),
        ({"supernet": "other"}, "supernet 'other'"),
        ({"device": "openvino"}, "device 'openvino'"),
        ({"overhead_ms": -1}, "'overhead_ms' is -1"),
    ],
)
def test_a_table_of_something_else_is_left_out(damage, said, made, path, device):
    record = {**json.loads(path.read_text()), **damage}
    path.write_text(json.dumps({**record, "sha256": content_digest(record)}))
    setup = offered()
    assert any(said in note for note in setup.notes)
    assert setup.recorded()["latency_table"] == {}


def test_a_resumed_search_proposes_what_the_unbroken_one_does(made, device, tmp_path):
    whole, _ = search(tmp_path / "whole", budget=16)
    search(tmp_path / "broken", budget=12)
    resumed = hwsearch.resume(tmp_path / "broken", budget=16)
    assert resumed.trials["key"].tolist() == whole.trials["key"].tolist()


def test_a_resumed_search_refuses_another_table(made, path, device, tmp_path):
    search(tmp_path / "run")
    before = path.read_text()
    path.write_text(before.replace('"overhead_ms": 0.0', '"overhead_ms": 0.1'))
    for change in (lambda: None, path.unlink):
        change()
        with pytest.raises(InputError, match="which is gone or was changed"):
            hwsearch.resume(tmp_path / "run", budget=8)
    path.write_text(before)
    assert len(hwsearch.resume(tmp_path / "run", budget=8).trials) == 8


def test_a_table_made_since_does_not_change_a_run(path, device, tmp_path):
    search(tmp_path / "run")
    make_table(MINIATURE, Profiled(), path)
    watcher = parts.Watcher()
    resumed = hwsearch.resume(tmp_path / "run", budget=8, progress=watcher)
    assert not any("predicted from" in note for note in watcher.notes)
    assert len(resumed.trials) == 8


def test_a_table_that_misleads_later_is_given_up_and_said_once(made, path, device, tmp_path):
    def restless(key, model=None):
        calm = len(device.timed) <= 16
        return latency_of(key) * (1.0 if calm else 0.3 + (int(key[:6], 16) % 997) / 300)

    device.scripts["search"] = device.scripts["confirm"] = restless
    run, notes = search(tmp_path / "run", budget=32)
    (note,) = [each for each in notes if "lay outside the 95% intervals" in each]
    assert "refitted without its approximation, from measured values alone" in note
    assert len(run.trials) == 32


def test_the_command_makes_a_table(path, monkeypatch):
    device = Profiled()
    monkeypatch.setattr("hwsearch.devices.load_device", lambda spec: device)
    result = command("profile", parts.NET, "--device", "scripted")
    assert result.exit_code == 0, result.output
    assert "block specs by profile" in result.output
    assert "off by" in result.output
    table = LatencyTable.load(path)
    again = command("profile", parts.NET, "--device", "scripted", "--json")
    facts = json.loads(again.stdout)
    assert facts["specs"] == len(table.blocks)
    assert facts["validated"]["n"] == 4


def test_the_command_says_how_to_go_on(path, monkeypatch):
    device = Profiled(stop_after=8)
    monkeypatch.setattr("hwsearch.devices.load_device", lambda spec: device)
    result = command("profile", parts.NET, "--device", "scripted")
    assert result.exit_code == 130
    assert "everything measured so far is kept, go on with: the same command" in result.output
