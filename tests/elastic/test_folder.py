import errno
import json
import os
from dataclasses import replace

import numpy as np
import onnx
import pytest

from hwsearch import files
from hwsearch.elastic import folder as folders
from hwsearch.elastic.build import Slicer
from hwsearch.elastic.folder import (
    CARD,
    GRAPH,
    MODEL,
    SPACE,
    STATISTICS,
    UNITS,
    Contents,
    cache_folder,
    check_fit,
    read_card,
    read_folder,
    write_folder,
)
from hwsearch.elastic.graph import Graph, Origin, Structure
from hwsearch.elastic.input_specs import spec_of_arrays
from hwsearch.elastic.proposal import propose
from hwsearch.errors import InputError
from hwsearch.supernets.interface import ImagePreprocessing
from tests.elastic.networks import CARD as CARD_OF, losses_of, orders_of
from tests.elastic.small_models import residual_cnn, samples, transformer

IMAGE = ImagePreprocessing(resize=14, crop=12, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


def contents_of(structure, **changes):
    given = structure.graph
    origin = Origin(name="fc.weight", permutation=(1, 0), norm=("a", "b", "c", "d"))
    graph = Graph(
        proto=given.proto,
        weights=given.weights,
        origins={next(iter(given.weights)): origin},
        shapes=given.shapes,
        digest=given.digest,
        notes=("an axis is fixed",),
    )
    fields = {
        "name": "small",
        "graph": graph,
        "orders": orders_of(structure),
        "losses": losses_of(structure),
        "space": propose(structure).to_dict(),
        "spec": replace(
            spec_of_arrays(graph, [samples(structure, 2)]),
            preprocessing=IMAGE,
            classes=("cat", "dog"),
        ),
        "card": CARD_OF,
        "model_digest": graph.digest,
        "data_digest": "d" * 64,
        "facts": {"samples": 2},
    }
    return Contents(**fields | changes)


@pytest.mark.parametrize("make", [residual_cnn, transformer])
def test_a_folder_is_read_as_it_was_written(make, tmp_path):
    structure = make()
    written = contents_of(structure)
    write_folder(tmp_path / "x.elastic", written, lambda path: path.write_bytes(b"numbers"))
    read = read_folder(tmp_path / "x.elastic")
    assert read.graph.proto == written.graph.proto
    assert list(read.graph.weights) == list(written.graph.weights)
    for name, array in written.graph.weights.items():
        np.testing.assert_array_equal(read.graph.weights[name], array)
        assert read.graph.weights[name].dtype == array.dtype
    for field in ("origins", "shapes", "digest", "notes"):
        assert getattr(read.graph, field) == getattr(written.graph, field)
    for field in ("name", "spec", "card", "model_digest", "data_digest", "facts"):
        assert getattr(read, field) == getattr(written, field)
    for field in ("orders", "losses"):
        for name, array in getattr(written, field).items():
            np.testing.assert_array_equal(getattr(read, field)[name], array)
    assert (tmp_path / "x.elastic" / STATISTICS).read_bytes() == b"numbers"
    space = check_fit(structure, read)
    assert space.space == propose(structure).space
    other = Structure(
        graph=read.graph,
        groups=structure.groups,
        branches=structure.branches,
        work=structure.work,
    )
    kept = {structure.groups[0].name: np.arange(structure.groups[0].size) < 2}
    assert Slicer(other).serialised(kept) == Slicer(structure).serialised(kept)
    onnx.checker.check_model(str(tmp_path / "x.elastic" / MODEL), full_check=True)


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "x.elastic"
    write_folder(path, contents_of(residual_cnn()), lambda file: file.write_bytes(b"numbers"))
    return path


@pytest.mark.parametrize("name", [MODEL, GRAPH, UNITS, SPACE, STATISTICS])
@pytest.mark.parametrize("damage", ["missing", "cut", "changed"])
def test_damage_is_refused(made, name, damage):
    path = made / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "changed":
        path.write_bytes(content[:-2] + bytes((content[-2] ^ 1,)) + content[-1:])
    with pytest.raises(InputError, match=f"is damaged: {name} is.*make it again"):
        read_folder(made)


def test_a_damaged_card_is_refused(made):
    card = made / CARD
    for content in ("{", "[]", '{"files": 3}'):
        card.write_text(content)
        with pytest.raises(InputError, match=r"is damaged: card.json"):
            read_folder(made)


def test_another_schema_is_refused(made):
    content = json.loads((made / CARD).read_text())
    (made / CARD).write_text(json.dumps(content | {"schema": 99}))
    with pytest.raises(InputError, match="has schema 99; this version of hwsearch reads 1"):
        read_card(made)


def test_a_card_cannot_name_files_elsewhere(made):
    content = json.loads((made / CARD).read_text())
    content["files"]["../other"] = "0"
    (made / "../other").write_text("x")
    (made / CARD).write_text(json.dumps(content))
    with pytest.raises(InputError, match="damaged"):
        read_folder(made)


def test_what_is_no_elastic_model_is_neither_read_nor_replaced(tmp_path):
    with pytest.raises(InputError, match=r"is no elastic model: it has no card.json"):
        read_card(tmp_path)
    with pytest.raises(InputError, match=r"is no elastic model: it has no card.json"):
        read_card(tmp_path / "absent")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="exists and is no elastic model"):
        write_folder(mine, contents_of(residual_cnn()))
    assert (mine / "thesis.txt").read_text() == "x"
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(InputError, match="no elastic model"):
        read_card(file)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written.*No space left on device.*free some"):
        write_folder(tmp_path / "x.elastic", contents_of(residual_cnn()))
    assert list(tmp_path.iterdir()) == []


def test_an_old_model_stays_if_the_new_one_fails(made):
    before = read_folder(made).model_digest

    def fail(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(made, contents_of(transformer()), fail)
    assert read_folder(made).model_digest == before
    assert [path.name for path in made.parent.iterdir()] == [made.name]


def test_contents_of_another_structure_are_refused(made):
    with pytest.raises(InputError, match=r"order of the units of 'block.width'"):
        check_fit(transformer(), read_folder(made))


def test_the_cache_is_by_name_and_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path))
    one, two = cache_folder("resnet", "a" * 64), cache_folder("resnet", "b" * 64)
    assert one != two
    assert one.parent == two.parent == tmp_path / "elastic"
    assert one.name == "resnet-aaaaaaaaaaaaaaaa.elastic"
    assert cache_folder("timm:a/b", "a" * 64).name == "timm-a-b-aaaaaaaaaaaaaaaa.elastic"
    assert cache_folder("../..", "a" * 64).name == "model-aaaaaaaaaaaaaaaa.elastic"


def test_models_beyond_the_size_of_a_file_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "_MAX_MODEL", 1000)
    with pytest.raises(InputError, match="GB of weights"):
        write_folder(tmp_path / "x.elastic", contents_of(residual_cnn()))
