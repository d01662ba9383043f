"""Weights come in safely, or not at all."""

import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import hwsearch
from hwsearch import load_supernet
from hwsearch.errors import InputError
from hwsearch.supernets.checkpoint_files import read_state
from hwsearch.supernets.zoo import load_family

NAME = "test-images"


def save_legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


SAVERS = {
    "safetensors": lambda state, path: save_file(state, path),
    "pt": torch.save,
    "pth": lambda state, path: torch.save({"state_dict": state}, path),
    "ckpt": save_legacy,
}


@pytest.mark.parametrize("kind", SAVERS)
def test_every_form_gives_the_same_weights(kind, state, digest, tmp_path):
    path = tmp_path / f"weights.{kind}"
    SAVERS[kind](state, path)
    net = load_supernet(NAME, str(path))
    assert net.digest == digest
    assert net.checkpoint == str(path)


def test_bundled_family_reads_files_too(tmp_path):
    network = load_family("cifar10-resnet").load("random:1")
    save_file(network.state, tmp_path / "weights.safetensors")
    net = load_supernet("cifar10-resnet", str(tmp_path / "weights.safetensors"))
    assert net.digest == network.digest
    assert "weights.safetensors" in net.card.source


OTHER_FILES = {
    "a.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", "git lfs pull"),
    "b.pth": (b"\n<!DOCTYPE html><html>", "a web page; download the file itself"),
    "c.pt.gz": (b"\x1f\x8b\x08\x00", "compressed by gzip; unpack it"),
    "d.h5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "e.onnx": (b"\x08\x07\x12\x04", "an ONNX model"),
}


@pytest.mark.parametrize("name", OTHER_FILES)
def test_a_file_of_another_format_is_named(name, tmp_path):
    content, said = OTHER_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        load_supernet(NAME, str(tmp_path / name))


def test_archives_of_arrays_and_of_code_are_named(state, tmp_path):
    np.savez(tmp_path / "weights.npz", **{key: value.numpy() for key, value in state.items()})
    with pytest.raises(InputError, match="an archive of NumPy arrays"):
        load_supernet(NAME, str(tmp_path / "weights.npz"))
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        archive.writestr("script/code/__torch__.py", "")
    with pytest.raises(InputError, match="TorchScript"):
        load_supernet(NAME, str(tmp_path / "script.pt"))


def test_an_archive_with_a_damaged_directory_is_refused(state, tmp_path):
    torch.save(state, tmp_path / "damaged.pt")
    content = (tmp_path / "damaged.pt").read_bytes()
    (tmp_path / "damaged.pt").write_bytes(content.replace(b"PK\x01\x02", b"PK\x01\x09"))
    with pytest.raises(InputError, match="truncated or no torch checkpoint"):
        load_supernet(NAME, str(tmp_path / "damaged.pt"))


def test_a_url_is_not_taken_for_a_path():
    with pytest.raises(InputError, match=r"'https:/+host/w\.pt' is a URL; download it"):
        load_supernet(NAME, "https://host/w.pt")


def test_a_folder_stands_for_its_only_file_or_its_index(state, digest, tmp_path):
    with pytest.raises(InputError, match=r"a folder with 0 files of weights \(none\)"):
        load_supernet(NAME, str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    save_file(state, tmp_path / "model.safetensors")
    assert load_supernet(NAME, str(tmp_path)).digest == digest
    torch.save({"state_dict": state}, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"2 files of weights \(model\.safetensors, other\.pt\)"):
        load_supernet(NAME, str(tmp_path))
    shard_of = dict.fromkeys(state, "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    assert load_supernet(NAME, str(tmp_path)).digest == digest


def test_order_and_precision_of_the_file_do_not_matter(state, tmp_path):
    halves = {key: tensor.half() for key, tensor in reversed(state.items())}
    torch.save(halves, tmp_path / "half.pt")
    net = load_supernet(NAME, str(tmp_path / "half.pt"))
    rounded = {key: tensor.half().float() for key, tensor in state.items()}
    torch.save(rounded, tmp_path / "rounded.pt")
    assert net.digest == load_supernet(NAME, str(tmp_path / "rounded.pt")).digest
    assert all(p.dtype == torch.float32 for p in net.subnet(net.space.largest()[0]).parameters())


@pytest.mark.parametrize("kind", SAVERS)
def test_truncated_anywhere(kind, state, tmp_path):
    whole = tmp_path / f"whole.{kind}"
    SAVERS[kind](state, whole)
    content = whole.read_bytes()
    cut = tmp_path / f"cut.{kind}"
    for size in [0, 1, 7, 9, 100, *(len(content) * part // 10 for part in range(1, 10))]:
        cut.write_bytes(content[:size])
        with pytest.raises(InputError, match=r"cut\.") as caught:
            load_supernet(NAME, str(cut))
        assert "truncated" in str(caught.value) or "damaged" in str(caught.value)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_something_else_altogether(suffix, tmp_path):
    path = tmp_path / f"notes.{suffix}"
    path.write_text("these are my notes, not weights\n" * 9)
    with pytest.raises(InputError, match="notes"):
        load_supernet(NAME, str(path))


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint '.*gone\.pt' does not exist"):
        load_supernet(NAME, str(tmp_path / "gone.pt"))


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


def torch_file(content, path):
    torch.save(content, path)


def legacy_file(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def plain_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("save", [torch_file, legacy_file, plain_pickle])
@pytest.mark.parametrize("wrap", [False, True])
def test_malicious_pickle_is_refused_and_never_run(save, wrap, state, tmp_path):
    mark = tmp_path / "was_here"
    content = {**state, "extra": Malicious(mark)}
    path = tmp_path / "weights.pt"
    save({"state_dict": content} if wrap else content, path)
    with pytest.raises(InputError, match="refused, and nothing in it was run") as caught:
        load_supernet(NAME, str(path))
    assert "safetensors" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert save is plain_pickle or "io.open" in str(caught.value)
    assert not mark.exists()
    # The same file does run where it is trusted, so the test would have noticed.
    loaded = pickle.loads(pickle.dumps(Malicious(mark)))
    loaded.close()
    assert mark.exists()


def test_what_is_no_state_dict(tmp_path, state):
    path = tmp_path / "odd.pt"
    for content, says in [
        ([1, 2], "holds no state dict, but list"),
        ({}, "holds no state dict"),
        ({"state_dict": 3}, "holds no state dict, but int"),
        ({**state, "epoch": 3}, "'epoch' is int, not a tensor"),
    ]:
        torch.save(content, path)
        with pytest.raises(InputError, match=says):
            load_supernet(NAME, str(path))


def test_keys_of_another_architecture_are_named(state, tmp_path):
    path = tmp_path / "other.safetensors"
    first = next(iter(state))
    changed = {key: tensor for key, tensor in state.items() if key != first}
    changed["surplus.weight"] = torch.zeros(2)
    changed["head.bias"] = torch.zeros(9)
    save_file(changed, path)
    with pytest.raises(InputError) as caught:
        load_supernet(NAME, str(path))
    text = str(caught.value)
    assert f"is not of supernet '{NAME}'" in text
    assert f"1 keys missing (first: {first})" in text
    assert "1 keys unexpected (first: surplus.weight)" in text
    assert "1 shapes differ (first: head.bias is (9,), not (4,))" in text


def test_checkpoint_of_another_supernet(tmp_path):
    tokens = load_family("test-tokens").load(None)
    save_file(tokens.state, tmp_path / "tokens.safetensors")
    with pytest.raises(InputError, match=r"keys missing \(first: stem.*embedding.weight"):
        load_supernet(NAME, str(tmp_path / "tokens.safetensors"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none(bad, state, tmp_path):
    broken = {key: tensor.clone() for key, tensor in state.items()}
    broken["head.bias"][1] = bad
    save_file(broken, tmp_path / "nan.safetensors")
    with pytest.raises(InputError, match=r"'head\.bias' holds NaN or infinite"):
        load_supernet(NAME, str(tmp_path / "nan.safetensors"))


def test_numbers_too_large_for_float32(state, tmp_path):
    broken = {key: tensor.double() for key, tensor in state.items()}
    broken["head.bias"][0] = 1e300
    torch.save(broken, tmp_path / "large.pt")
    with pytest.raises(InputError, match=r"'head\.bias' holds NaN or infinite"):
        load_supernet(NAME, str(tmp_path / "large.pt"))


def doubled(state):
    return {key: 2 * tensor for key, tensor in state.items()}


def prefixed(state, prefix):
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "net.", "module._orig_mod.", "model.module._orig_mod."],
)
@pytest.mark.parametrize("name", [NAME, "ofa-mbv3-w1.0"])
def test_prefixes_of_wrappers_are_taken_off(prefix, name, tmp_path):
    state = load_family(name).load("random:5").state
    torch.save(prefixed(state, prefix), tmp_path / "wrapped.pth")
    assert (
        load_supernet(name, str(tmp_path / "wrapped.pth")).digest
        == load_supernet(name, "random:5").digest
    )


def test_what_lies_beside_a_wrapped_network_does_not_matter(state, digest, tmp_path):
    beside = {"n_averaged": torch.tensor(7), "loss.weight": torch.ones(3)}
    torch.save(beside | prefixed(state, "module."), tmp_path / "swa.pth")
    assert load_supernet(NAME, str(tmp_path / "swa.pth")).digest == digest


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"model": s, "epoch": 3, "best": 0.7},
        lambda s: {"net": prefixed(s, "module."), "acc": torch.tensor(0.5)},
        lambda s: {"checkpoint": {"model_state_dict": s}},
        lambda s: {"ema": s},
        lambda s: {"model": s, "optimizer": {"state": {"a": dict(s)}}},
        lambda s: {"model": s, "optimizer": {"exp_avg": s, "exp_avg_sq": s}},
        lambda s: {"state_dict": s, "lr_schedulers": {"a": {"x": torch.ones(1)}}},
    ],
)
def test_weights_below_a_key(wrap, state, digest, tmp_path, caplog):
    torch.save(wrap(state), tmp_path / "nested.pt")
    assert load_supernet(NAME, str(tmp_path / "nested.pt")).digest == digest
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


BESIDE = {
    "timm": (lambda a, b: {"state_dict": a, "state_dict_ema": b, "epoch": 3}, "state_dict_ema"),
    "nested": (lambda a, b: {"model": a, "ema": {"decay": 0.9, "shadow": b}}, "ema.shadow"),
    "torchvision": (lambda a, b: {"model": a, "model_ema": prefixed(b, "module.")}, "model_ema"),
    "flat": (lambda a, b: prefixed(a, "model.") | prefixed(b, "model_ema."), "model_ema"),
    "wrapped": (lambda a, b: prefixed(a, "m.model.") | prefixed(b, "m.model_ema."), "model_ema"),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_of_averaged_and_raw_weights_one_is_taken_and_named(kind, state, tmp_path, caplog):
    wrap, averaged = BESIDE[kind]
    path = tmp_path / "both.pt"
    torch.save(wrap(state, doubled(state)), path)
    raw, ema = (load_supernet(NAME, f"{path}#{which}") for which in ("raw", "ema"))
    assert not caplog.records
    assert torch.equal(raw.network.state["head.bias"], state["head.bias"])
    assert torch.equal(ema.network.state["head.bias"], 2 * state["head.bias"])
    assert load_supernet(NAME, f"{path}#{averaged}").digest == ema.digest
    assert load_supernet(NAME, str(path)).digest == ema.digest
    assert f"{averaged!r} is taken (write both.pt#NAME for another)" in caplog.text


def test_the_weights_taken_are_on_the_card(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
    state = load_family("cifar10-resnet").load("random:1").state
    path = tmp_path / "both.pt"
    torch.save({"model": state, "model_ema": doubled(state)}, path)
    assert "both.pt#model_ema" in load_supernet("cifar10-resnet", str(path)).card.source
    assert "both.pt#model," in hwsearch.import_checkpoint(f"{path}#raw", "raw").card().source
    raw, ema = load_supernet("raw"), hwsearch.import_checkpoint(path, "averaged")
    assert ema.source == "both.pt#model_ema"
    assert torch.equal(raw.network.state["head.bias"], state["head.bias"])
    assert torch.equal(
        load_supernet("averaged").network.state["head.bias"], 2 * state["head.bias"]
    )


def test_weights_that_are_not_there_and_weights_that_are_not_named(state, tmp_path):
    path = tmp_path / "two.pt"
    torch.save({"student": state, "teacher": state}, path)
    with pytest.raises(InputError, match=r"2 sets of weights: student, teacher.*two\.pt#student"):
        load_supernet(NAME, str(path))
    load_supernet(NAME, f"{path}#teacher")
    for missing in ("ema", "techer"):
        with pytest.raises(InputError, match=f"{missing}.*student.*teacher"):
            load_supernet(NAME, f"{path}#{missing}")


def test_a_file_name_may_hold_a_hash(state, digest, tmp_path):
    torch.save(state, tmp_path / "run#3.pt")
    assert load_supernet(NAME, str(tmp_path / "run#3.pt")).digest == digest


def test_a_layer_that_is_called_like_an_average_is_a_layer(tmp_path):
    state = {"ema.weight": torch.ones(2), "conv.weight": torch.ones(3), "conv.bias": torch.ones(1)}
    state["fc.weight"] = torch.ones(1)
    torch.save(state, tmp_path / "layers.pt")
    assert set(read_state(tmp_path / "layers.pt")) == set(state)


@pytest.mark.parametrize(
    ("kind", "name"), [("safetensors", "weights.bin"), ("pt", "w.safetensors")]
)
def test_the_format_is_recognised_by_content(kind, name, state, digest, tmp_path):
    SAVERS[kind](state, tmp_path / name)
    assert load_supernet(NAME, str(tmp_path / name)).digest == digest
