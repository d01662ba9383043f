"""Checkpoints in several files, which an index names."""

import json

import pytest
import torch
from safetensors.torch import save_file

from hwsearch import load_supernet
from hwsearch.errors import InputError

NAME = "test-images"


def sharded(state, folder, kind="safetensors", **changed):
    """Write shards and their index, and return its path."""
    names = sorted(state)
    parts = [names[::2], names[1::2]]
    files = [f"model-0000{i}-of-00002.{kind}" for i in (1, 2)]
    for file, part in zip(files, parts, strict=True):
        save = save_file if kind == "safetensors" else torch.save
        save({name: state[name] for name in part}, folder / file)
    weight_map = {n: f for f, part in zip(files, parts, strict=True) for n in part} | changed
    index = folder / f"model.{kind}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(kind, state, digest, tmp_path):
    index = sharded(state, tmp_path, kind)
    assert load_supernet(NAME, str(index)).digest == digest
    shard = tmp_path / f"model-00002-of-00002.{kind}"
    shard.unlink()
    with pytest.raises(InputError, match=f"needs shard '{shard.name}', which is not beside it"):
        load_supernet(NAME, str(index))


def test_shards_may_be_links_as_in_a_cache(state, digest, tmp_path):
    (tmp_path / "snapshot").mkdir()
    index = sharded(state, tmp_path / "snapshot")
    for shard in index.parent.glob("*.safetensors"):
        shard.rename(tmp_path / shard.name)
        shard.symlink_to(tmp_path / shard.name)
    assert load_supernet(NAME, str(index)).digest == digest


@pytest.mark.parametrize(
    "shard", ["../weights.safetensors", "/etc/passwd", "..", "", "a\\b", "C:x", 3, None, ["x"]]
)
def test_shards_elsewhere_are_not_read(shard, state, tmp_path):
    (tmp_path / "model").mkdir()
    save_file(state, tmp_path / "weights.safetensors")
    index = sharded(state, tmp_path / "model", **{"head.bias": shard})
    with pytest.raises(InputError, match=r"no file in its folder|no index of shards"):
        load_supernet(NAME, str(index))


def test_indexes_that_are_none(state, tmp_path):
    index = sharded(state, tmp_path, **{"more.weight": "model-00001-of-00002.safetensors"})
    with pytest.raises(InputError, match=r"lacks tensor 'more\.weight'"):
        load_supernet(NAME, str(index))
    index = sharded(state, tmp_path, **{"head.bias": "model.safetensors.index.json"})
    with pytest.raises(InputError, match=r"00001|index\.json. was refused"):
        load_supernet(NAME, str(index))
    for text in ('{"weight_map": 3}', '{"a": 1}', "{", "[]"):
        index.write_text(text)
        with pytest.raises(InputError, match=r"model\.safetensors\.index\.json"):
            load_supernet(NAME, str(index))


def test_a_shard_that_is_only_a_pointer_is_named(state, tmp_path):
    index = sharded(state, tmp_path)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\n")
    with pytest.raises(InputError, match=f"{shard.name}' is a pointer of Git LFS"):
        load_supernet(NAME, str(index))
