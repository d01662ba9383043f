"""Weights come in safely, or not at all."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from hwsearch import load_supernet
from hwsearch.errors import InputError
from hwsearch.supernets.zoo import load_family

NAME = "test-images"


@pytest.fixture(scope="module")
def state():
    return load_family(NAME).load("random:5").state


@pytest.fixture(scope="module")
def digest():
    return load_supernet(NAME, "random:5").digest


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


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"checkpoint '.*gone\.pt' does not exist"):
        load_supernet(NAME, str(tmp_path / "gone.pt"))
    with pytest.raises(InputError, match="does not exist"):
        load_supernet(NAME, str(tmp_path))


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
