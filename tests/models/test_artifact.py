import json
import stat

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from hwsearch.errors import InputError
from hwsearch.files import sha256_of, staged_folder, write_atomic
from hwsearch.models.agreement import probe_inputs
from hwsearch.models.artifact import (
    CARD,
    INFER,
    MODEL,
    WEIGHTS,
    read_card,
    write_files,
)
from hwsearch.models.exported import BUFFERS
from hwsearch.models.module_outputs import torch_outputs
from hwsearch.quantities import exact_quantities
from hwsearch.supernets.interface import InputSpec, TensorSpec
from hwsearch.supernets.zoo import supernet_names
from tests.models.networks import IMAGE, export
from tests.models.test_count import Tied


def test_staged_folder_appears_whole(tmp_path):
    final = tmp_path / "deep" / "subnet"
    with staged_folder(final) as folder:
        (folder / "a").write_text("1")
        assert not final.exists()
        assert folder.parent == final.parent
    assert (final / "a").read_text() == "1"
    assert [entry.name for entry in final.parent.iterdir()] == ["subnet"]
    assert stat.S_IMODE(final.stat().st_mode) == 0o755


def fail_within(final, error):
    with staged_folder(final) as folder:
        (folder / "a").write_text("new")
        raise error


def test_staged_folder_leaves_nothing_behind_on_an_error(tmp_path):
    final = tmp_path / "subnet"
    with pytest.raises(RuntimeError, match="stop"):
        fail_within(final, RuntimeError("stop"))
    assert list(tmp_path.iterdir()) == []


def test_staged_folder_keeps_what_stood_there_on_an_error(tmp_path):
    final = tmp_path / "subnet"
    with staged_folder(final) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        fail_within(final, KeyboardInterrupt())
    assert (final / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [final]


def test_staged_folder_replaces_what_stood_there(tmp_path):
    final = tmp_path / "subnet"
    for name in ("old", "new"):
        with staged_folder(final) as folder:
            (folder / name).write_text("")
    assert [entry.name for entry in final.iterdir()] == ["new"]


def test_write_atomic(tmp_path):
    path = tmp_path / "file.txt"
    write_atomic(path, "grün")
    assert path.read_text(encoding="utf-8") == "grün"
    write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_write_atomic_keeps_the_old_file_on_an_error(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_atomic(path, "old")

    def full(handle):
        raise OSError("no space left")

    monkeypatch.setattr("hwsearch.files.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", supernet_names())
def test_artifact_is_complete(name, exported_of, written):
    net, exported = exported_of(name)
    folder = written(name)
    assert {p.name for p in folder.iterdir()} == {MODEL, WEIGHTS, INFER, CARD}
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o644 for p in folder.iterdir())
    card = read_card(folder)
    assert card["architecture"] == exported.arch.mapping
    assert card["key"] == exported.arch.key
    assert card["supernet"]["name"] == name
    assert card["supernet"]["licence"] == net.card.licence
    assert card["files"] == {f: sha256_of(folder / f) for f in (MODEL, WEIGHTS, INFER)}
    assert list(card["measurements"]) == [card["files"][MODEL]]
    batch = net.space.architectures([exported.arch])
    assert card["exact"] == {q: int(net.exact(q, batch)[0]) for q in exact_quantities()}
    spec = net.input_spec(exported.arch)
    assert card["input"] == json.loads(json.dumps(spec.to_dict()))


@pytest.mark.parametrize("name", supernet_names())
def test_weights_are_the_networks(name, exported_of, written):
    net, exported = exported_of(name)
    twin = net.subnet(exported.arch)
    twin.load_state_dict(load_file(written(name) / WEIGHTS))
    inputs = probe_inputs(net.input_spec(exported.arch).inputs, seed=2)
    ours, theirs = torch_outputs(twin, inputs)[0], torch_outputs(exported.subnet, inputs)[0]
    assert (ours == theirs).all()
    with safe_open(written(name) / WEIGHTS, framework="np") as file:
        buffers = json.loads(file.metadata()[BUFFERS])
    assert buffers == sorted(name for name, _ in exported.subnet.named_buffers())


def test_tied_weights_come_back_tied(tmp_path):
    spec = InputSpec(inputs=(TensorSpec(name="ids", shape=(5,), dtype="int64", high=9),))
    net, exported = export(Tied(), spec)
    write_files(tmp_path, net, exported)
    twin = Tied()
    twin.load_state_dict(load_file(tmp_path / WEIGHTS))
    assert torch.equal(twin.table.weight, exported.subnet.table.weight)
    assert twin.table.weight is twin.head.weight


def test_weights_that_do_not_lie_in_order(tmp_path):
    module = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    net, exported = export(module, IMAGE)
    write_files(tmp_path, net, exported)
    assert torch.equal(load_file(tmp_path / WEIGHTS)["weight"], module.weight)


def test_card_that_is_none(tmp_path):
    with pytest.raises(InputError, match=r"is no exported subnet: it has no card\.json"):
        read_card(tmp_path)
    for text, says in [
        ("{", "cannot be read"),
        ("[]", "has schema 'list'"),
        ('{"schema": 99}', "has schema 99; this version reads 1 and 2"),
        ("{}", "has schema None"),
    ]:
        (tmp_path / CARD).write_text(text)
        with pytest.raises(InputError, match=says):
            read_card(tmp_path)
