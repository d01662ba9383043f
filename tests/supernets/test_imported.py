"""Checkpoints that were imported under a name."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hwsearch import import_checkpoint, load_supernet
from hwsearch.data import user_data
from hwsearch.errors import InputError
from hwsearch.supernets.imported import imported_names, load_imported, read_imported


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def checkpoint(tmp_path):
    """Of other weights than those that ship."""
    state = load_supernet("cifar10-resnet", "random:5").network.state
    torch.save({"state_dict": state}, tmp_path / "mine.pth")
    return tmp_path / "mine.pth"


def test_loads_the_same_weights_by_name(checkpoint, home):
    imported = import_checkpoint(checkpoint, "mine")
    original = load_supernet("cifar10-resnet", "random:5")
    checkpoint.unlink()
    net = load_supernet("mine")
    assert net.digest == original.digest
    assert (net.name, net.card.name, net.checkpoint) == ("mine", "mine", None)
    assert net.family == original.family == "cifar10-resnet", "what tables and kits go by"
    assert not net.untrained
    assert imported_names() == ["mine"]
    assert imported.folder == home / "supernets" / "mine"
    assert imported.tensors == len(original.network.state)
    assert imported.parameters == sum(t.numel() for t in original.network.state.values())


def test_batch_statistics_are_no_parameters(tmp_path):
    state = load_supernet("ofa-resnet50", "random:0").network.state
    torch.save({"state_dict": state}, tmp_path / "x.pth")
    imported = import_checkpoint(tmp_path / "x.pth", "mine")
    statistics = [name for name in state if "running" in name]
    assert imported.tensors == len(state) > len(statistics) > 0
    learned = sum(state[name].numel() for name in state if name not in statistics)
    assert imported.parameters == learned


def test_the_card_says_where_it_comes_from(checkpoint):
    imported = import_checkpoint(str(checkpoint), "mine", "cifar10-resnet")
    assert imported == read_imported("mine")
    assert imported.source_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert (imported.family, imported.source) == ("cifar10-resnet", "mine.pth")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", imported.date)
    family, weights, card = load_imported("mine")
    assert (family, weights.name) == ("cifar10-resnet", "weights.safetensors")
    assert imported.source_sha256 in card.source
    assert card.licence == imported.licence == "unknown"
    assert {path.name for path in imported.folder.iterdir()} == {
        "card.json", "weights.safetensors",
    }  # fmt: skip


def test_bundled_data_are_those_of_the_family(checkpoint):
    from hwsearch.run.config import RunConfig
    from hwsearch.run.setup import prepare

    import_checkpoint(checkpoint, "mine")
    setup = prepare(RunConfig(supernet="mine", device="scripted"))
    assert len(setup.task.search) == 2500


def test_a_safetensors_file_of_a_family_that_is_named(tmp_path):
    net = load_supernet("test-images", "random:3")
    save_file({k: t.clone() for k, t in net.network.state.items()}, tmp_path / "x.safetensors")
    assert import_checkpoint(tmp_path / "x.safetensors", "a+b_1.0", "test-images").family
    assert load_supernet("a+b_1.0").digest == net.digest


def test_a_file_whose_name_looks_like_a_seed_is_a_file(checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint.parent)
    checkpoint.rename("random:0")
    import_checkpoint("random:0", "mine", "cifar10-resnet")
    assert load_supernet("mine").digest == load_supernet("cifar10-resnet", "random:5").digest


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a:b", "-x", "ä", "x" * 65, "a\n"])
def test_names_that_are_not_usable(checkpoint, home, name):
    with pytest.raises(InputError, match=r"is not usable; give up to 64 letters"):
        import_checkpoint(checkpoint, name)
    assert not home.exists()


def test_names_that_are_taken(checkpoint, home):
    with pytest.raises(InputError, match=r"'test-tokens' is that of a registered supernet"):
        import_checkpoint(checkpoint, "test-tokens")
    assert not home.exists()
    import_checkpoint(checkpoint, "mine")
    before = (home / "supernets/mine/card.json").read_bytes()
    with pytest.raises(InputError, match=r"'mine' is taken.*Give another name, or remove"):
        import_checkpoint(checkpoint, "mine")
    assert (home / "supernets/mine/card.json").read_bytes() == before


@pytest.mark.parametrize(
    ("file", "family", "message"),
    [
        ("nowhere.pth", None, "nowhere.pth' does not exist"),
        ("nowhere.pth", "cifar10-resnet", "nowhere.pth' does not exist"),
        ("random:0", "cifar10-resnet", "'random:0' does not exist"),
        ("text.pth", None, "'text.pth' was refused, and nothing in it was run"),
        ("other.pth", None, "this checkpoint is of none of the supernets"),
        ("other.pth", "cifar10-resnet", "is not of supernet 'cifar10-resnet'"),
        ("mine.pth", "ofa-resnet50", "It looks like 'cifar10-resnet'"),
        ("mine.pth", "tests.run.search_parts:network", "unknown supernet 'tests.run"),
        ("mine.pth", "cifar10-resnt", "Did you mean 'cifar10-resnet'"),
    ],
)
def test_checkpoints_that_are_none(checkpoint, home, monkeypatch, file, family, message):
    monkeypatch.chdir(checkpoint.parent)
    Path("text.pth").write_text("no checkpoint")
    torch.save({"weight": torch.zeros(3)}, "other.pth")
    with pytest.raises(InputError, match=message):
        import_checkpoint(file, "mine", family)
    assert not home.exists()


def test_a_family_that_shows_no_weights(checkpoint, home, monkeypatch):
    net = load_supernet("cifar10-resnet", "random:5")
    del net.network.state
    monkeypatch.setattr("hwsearch.supernets.zoo.load_supernet", lambda *args: net)
    with pytest.raises(InputError, match=r"shows no weights.*--checkpoint .*mine.pth instead"):
        import_checkpoint(checkpoint, "mine")
    assert not home.exists()


class TestDamaged:
    @pytest.fixture(autouse=True)
    def _imported(self, checkpoint):
        self.folder = import_checkpoint(checkpoint, "mine").folder

    def refused(self, reason):
        with pytest.raises(InputError, match=reason) as caught:
            load_supernet("mine")
        assert "hwsearch import CHECKPOINT --as mine" in str(caught.value)
        assert imported_names() == ["mine"]

    def test_one_flipped_byte(self):
        path = self.folder / "weights.safetensors"
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        self.refused("weights.safetensors is not the file that its card describes")

    def test_no_weights(self):
        (self.folder / "weights.safetensors").unlink()
        self.refused("weights.safetensors is missing")

    def test_no_card(self):
        (self.folder / "card.json").unlink()
        self.refused(r"card.json cannot be read \(FileNotFoundError")

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("{", "cannot be read"),
            ("[]", "cannot be read"),
            ('{"schema": 1}', "cannot be read"),
            ("other schema", "schema 2"),
            ("other name", "that of 'other'"),
        ],
    )
    def test_another_card(self, content, reason):
        path = self.folder / "card.json"
        card = json.loads(path.read_text())
        changed = {"other schema": {"schema": 2}, "other name": {"name": "other"}}.get(content)
        path.write_text(content if changed is None else json.dumps(card | changed))
        self.refused(reason)


def test_an_import_that_is_stopped_leaves_nothing_under_the_name(checkpoint, home, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("hwsearch.supernets.checkpoint_import.write_atomic", stopped)
        with pytest.raises(KeyboardInterrupt):
            import_checkpoint(checkpoint, "mine")
    assert list((home / "supernets").iterdir()) == []
    with monkeypatch.context() as patch:
        patch.setattr("hwsearch.supernets.checkpoint_import.write_atomic", stopped)
        # Nothing is tidied up after a kill.
        patch.setattr("shutil.rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KeyboardInterrupt):
            import_checkpoint(checkpoint, "mine")
    assert len(list((home / "supernets").iterdir())) == 1
    assert imported_names() == []
    assert import_checkpoint(checkpoint, "mine").name == "mine"
    assert imported_names() == ["mine"]


def stopped(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HWSEARCH_HOME": "/h", "XDG_DATA_HOME": "/x"}, "/h"),
        ({"XDG_DATA_HOME": "/x"}, "/x/hwsearch"),
        ({"HOME": "/me"}, "/me/.local/share/hwsearch"),
    ],
)
def test_where_imports_lie(monkeypatch, variables, folder):
    for name in ("HWSEARCH_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert user_data() == Path(folder)
