"""Importing checkpoints."""

import json
from pathlib import Path

import pytest
import torch

from hwsearch.supernets.zoo import load_supernet
from tests.cli.commands import call, refused

pytestmark = pytest.mark.timeout(300)


class Malicious:
    def __reduce__(self):
        return Path.touch, (Path("executed"),)


class TestImport:
    @pytest.fixture(autouse=True)
    def _checkpoint(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)
        self.state = load_supernet("cifar10-resnet").network.state
        torch.save({"state_dict": self.state}, "weights.pth")
        self.folder = tmp_path / "home" / "supernets" / "mine"

    def test_says_what_it_found_where_it_is_and_what_to_do_next(self):
        result = call("import", "weights.pth", "--as", "mine")
        assert result.exit_code == 0, result.stderr
        family, tensors, written, next_ = result.stdout.splitlines()
        assert family.startswith("family   cifar10-resnet (recognised): ")
        n_parameters = sum(tensor.numel() for tensor in self.state.values())
        assert tensors == f"tensors  {len(self.state)} with {n_parameters:,} parameters"
        assert written == f"written  {self.folder}"
        command = next_.removeprefix("next     hwsearch ")
        assert command == "search --supernet mine --out runs/mine"
        result = call(*command.split(), "--device", "scripted", "--budget", 0)
        refused(result, "budget is 0")

    def test_data_are_asked_for_where_none_ship(self):
        state = load_supernet("test-images").network.state
        torch.save(state, "images.pth")
        result = call("import", "images.pth", "--as", "mine", "--supernet", "test-images")
        assert "family   test-images (given)" in result.stdout
        assert "--supernet mine --data imagefolder:FOLDER --out runs/mine" in result.stdout

    def test_as_json(self):
        result = call("import", "weights.pth", "--as", "mine", "--json")
        found = json.loads(result.stdout)
        assert (found["name"], found["family"]) == ("mine", "cifar10-resnet")
        assert found["folder"] == str(self.folder)
        assert found["tensors"] == len(self.state)

    def test_is_listed_with_family_and_source(self):
        call("import", "weights.pth", "--as", "mine")
        rows = {row["name"]: row for row in json.loads(call("supernets", "--json").stdout)}
        assert (rows["mine"]["family"], rows["mine"]["source"]) == (
            "cifar10-resnet",
            "weights.pth",
        )
        assert rows["cifar10-resnet"]["family"] is None
        assert "weights.pth" in call("supernets").stdout
        (self.folder / "card.json").unlink()
        result = call("supernets", "--json")
        rows = {row["name"]: row for row in json.loads(result.stdout)}
        assert "'mine' is damaged" in rows["mine"]["summary"]
        assert "damaged" in call("supernets").stdout

    @pytest.mark.parametrize(
        ("given", "parts"),
        [
            (["nowhere.pth", "--as", "mine"], ["'nowhere.pth' does not exist"]),
            (["weights.pth", "--as", "a b"], ["'a b' is not usable"]),
            (["weights.pth", "--as", "test-images"], ["that of a registered supernet"]),
            (["malicious.pth", "--as", "mine"], ["was refused, and nothing in it was run"]),
            (
                ["weights.pth", "--as", "mine", "--supernet", "test-images"],
                ["is not of supernet 'test-images'", "It looks like 'cifar10-resnet'"],
            ),
        ],
    )
    def test_bad_input(self, given, parts):
        torch.save({"state_dict": self.state, "extra": Malicious()}, "malicious.pth")
        refused(call("import", *given), *parts)
        assert not self.folder.exists()
        assert not Path("executed").exists()
