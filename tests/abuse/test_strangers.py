"""Files from strangers: refused by a clear error, within 2 GB, and nothing outside is touched."""

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper

import hwsearch
from hwsearch import Run
from hwsearch.accuracy.sources import load_task
from hwsearch.kit.manifest import KitModel, read_manifest, unpacked
from hwsearch.kit.results import read_results
from hwsearch.models.artifact import read_card
from hwsearch.models.onnx_file import stray_data
from hwsearch.prediction.folder import CARD, FORMAT, PARAMETERS, SCHEMA, read_folder
from hwsearch.run.outcome import read_members
from hwsearch.run.search_summary import SearchSummary
from hwsearch.space import SearchSpace
from hwsearch.supernets.checkpoints import read_state
from hwsearch.tables import LatencyTable
from tests.abuse.bounded import outcome
from tests.accuracy.folders import spec_for

GIGABYTE = 2**30
JSON = {
    "lists": "[" * 200_000 + "]" * 200_000,
    "objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "digits": '{"format": "hwsearch latency table", "schema": ' + "1" * 200_000 + "}",
    "keys": '{"schema": 2,' + ",".join(f'"{n}":1' for n in range(1_500_000)) + "}",
    "empties": '{"schema": 2, "x": [' + ",".join(['{"":{}}'] * 1_900_000) + "]}",
    "null-bytes": "\0" * 1000,
    "text": '"only text"',
    "number": "7",
    "empty": "",
}
TOML = {
    "lists": "a=" + "[" * 100_000 + "]" * 100_000,
    "tables": "a=" + "{a=" * 50_000 + "1" + "}" * 50_000,
    "dots": ".".join(["a"] * 50_000) + "=1",
    "header": "[" + ".".join(["a"] * 50_000) + "]",
    "digits": "[search]\nseed=" + "1" * 100_000 + "\n[recorded]",
    "types": "search=[]\nrecorded=1",
    "objectives": "[search]\n[recorded]\nobjectives=[1]",
    "device": "[search]\n[recorded]\ndevice=[]",
    "null-bytes": "\0\1",
}
READERS = {
    "table": lambda path: LatencyTable.load(path),
    "kit-results": lambda path: read_results(path),
    "card": lambda path: read_card(path.parent),
    "predictor": lambda path: read_folder(path.parent),
    "kit": lambda path: read_manifest(as_kit(path)),
    "space": lambda path: SearchSpace.from_json(path.read_text()),
    "summary": lambda path: SearchSummary.from_json(path.read_text(), "search.json"),
}


def as_kit(path):
    kit = path.with_name("kit.pyz")
    with zipfile.ZipFile(kit, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "kit.json")
    return kit


def large(path):
    with path.open("wb") as file:
        file.truncate(GIGABYTE)
    return path


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(
    "bomb",
    [pytest.param(b, marks=pytest.mark.slow) if len(JSON[b]) > 2**20 else b for b in JSON],
)
def test_json(reader, bomb, tmp_path):
    path = tmp_path / "card.json"
    path.write_text(JSON[bomb])
    found = outcome(lambda: READERS[reader](path))
    # A card says what it likes; what it says is checked against its model.
    assert found.startswith("refused: ") or (reader, found) == ("card", "nothing"), found


@pytest.mark.parametrize(
    "reader",
    ["table", "kit-results", "card", "predictor", pytest.param("kit", marks=pytest.mark.slow)],
)
def test_a_gigabyte_is_not_even_read(reader, tmp_path):
    path = large(tmp_path / "card.json")
    assert outcome(lambda: READERS[reader](path)).startswith("refused: ")


@pytest.mark.parametrize("bomb", TOML)
def test_toml(bomb, tmp_path):
    (tmp_path / "config.toml").write_text(TOML[bomb])
    assert outcome(lambda: Run(tmp_path)).startswith("refused: ")


def test_a_gigabyte_of_settings_or_of_a_front(tmp_path):
    large(tmp_path / "config.toml")
    assert "it takes 1,024 MB, and 16 are allowed" in outcome(lambda: Run(tmp_path))
    large(tmp_path / "front.csv")
    assert "it takes 1,024 MB" in outcome(lambda: read_members(tmp_path / "front.csv", ["top1"]))


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("../../../etc,subnets/x,1", "'../../../etc' is no key"),
        ("0123456789abcdef,subnets/x,many", "could not convert string"),
        ('0123456789abcdef,"x,1', "is damaged"),
        ("", "it has no rows"),
        (",,", "nan is no key"),
    ],
)
def test_a_front_names_no_folder_outside_of_its_run(rows, reason, tmp_path):
    path = tmp_path / "front.csv"
    path.write_text(f"key,subnet,top1\n{rows}\n")
    with pytest.raises(hwsearch.InputError, match="is damaged") as caught:
        read_members(path, ["top1"])
    assert reason in str(caught.value)


def header(shape, dtype):
    """The beginning of an array's file that claims a shape."""
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    text += b" " * (63 - (10 + len(text)) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


NPZ = {
    "lying": {"search.image.npy": header((2**40,), "<f4") + b"\0" * 16},
    "objects": {"search.image.npy": header((1,), "|O") + pickle.dumps([1])},
    "outside": {"../../outside.npy": header((1,), "|u1") + b"\0"},
    "empty": {},
}


def predictor_of(arrays):
    """The folder of a predictor with these arrays as its parameters."""
    folder = arrays.parent
    arrays.rename(folder / PARAMETERS)
    (folder / CARD).write_text(json.dumps({"format": FORMAT, "schema": SCHEMA}))
    return folder


@pytest.mark.parametrize("bomb", NPZ)
def test_arrays(bomb, tmp_path):
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in NPZ[bomb].items():
            archive.writestr(name, content)
    spec = spec_for(8)
    assert outcome(lambda: load_task(f"npz:{path}", spec, "tiny")).startswith("refused: ")
    assert os.listdir(tmp_path) == ["arrays.npz"]
    assert outcome(lambda: read_folder(predictor_of(path))).startswith("refused: ")
    assert sorted(os.listdir(tmp_path)) == [CARD, PARAMETERS]


@pytest.mark.parametrize("reader", ["data", "predictor"])
def test_arrays_that_unpack_to_more_than_there_is_memory_for(reader, tmp_path, monkeypatch):
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("search.image.npy", header((2**28,), "|u1") + bytes(2**28))
    monkeypatch.setattr("hwsearch.accuracy.sources.available_memory_bytes", lambda: 2**27)
    spec = spec_for(8)
    calls = {
        "data": lambda: load_task(f"npz:{path}", spec, "tiny"),
        "predictor": lambda: read_folder(predictor_of(path)),
    }
    assert "unpack" in outcome(calls[reader])


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def zipped(path, evil):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": evil}, protocol=2))
        archive.writestr("archive/version", "3\n")


def plain(path, evil):
    path.write_bytes(pickle.dumps({"weight": evil}))


def saved(path, evil):
    torch.save({"weight": torch.zeros(2), "extra": evil}, path)


@pytest.mark.parametrize("write", [zipped, plain, saved])
@pytest.mark.parametrize("read", [read_state, lambda p: hwsearch.import_checkpoint(p, "mine")])
def test_a_pickle_is_refused_and_runs_nothing(write, read, tmp_path):
    path, made = tmp_path / "weights.pth", tmp_path / "made"
    write(path, Evil(made))
    with pytest.raises(hwsearch.InputError, match=r"was refused, and nothing in it was run"):
        read(path)
    assert not made.exists()


def test_a_packed_checkpoint_is_not_unpacked(tmp_path):
    source, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    torch.save({"weight": torch.zeros(3)}, source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(2**28) if "/data/0" in name else old.read(name))
    assert bomb.stat().st_size < 2**20
    assert "is compressed, as torch writes none" in outcome(lambda: read_state(bomb))


SAFETENSORS = {
    "shape": {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}},
    "overlap": {
        name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in ("a", "b")
    },
    "dtype": {"a": {"dtype": "X", "shape": [2], "data_offsets": [0, 8]}},
    "negative": {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, -8]}},
}


@pytest.mark.parametrize("lie", [*SAFETENSORS, "length", "deep", "large"])
def test_safetensors_that_lie(lie, tmp_path):
    path = tmp_path / "weights.safetensors"
    text = JSON["lists"] if lie == "deep" else json.dumps(SAFETENSORS.get(lie, {}))
    length = 2**62 if lie == "length" else len(text)
    path.write_bytes(struct.pack("<Q", length) + text.encode() + bytes(8))
    if lie == "large":
        large(path)
    assert outcome(lambda: read_state(path)).startswith("refused: ")


KEY = "0123456789abcdef"


def kit_of(path, member, content, **changes):
    record = {"key": KEY, "architecture": {}, "sha256": "0" * 64, "n_bytes": 8, "blocks": {}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
    return KitModel(**(record | changes))


@pytest.mark.parametrize("key", ["../../x", "/etc/passwd", "a" * 15, "x" * 16, 7, None])
def test_a_key_of_a_kit_is_no_path(key):
    with pytest.raises(hwsearch.InputError, match="which is no key"):
        KitModel(key=key, architecture={}, sha256="", n_bytes=8, blocks={})


def test_a_member_of_a_kit_writes_no_more_than_it_promised(tmp_path):
    model = kit_of(tmp_path / "kit.pyz", f"models/{KEY}.onnx", bytes(2**28))

    def unpack():
        with unpacked(tmp_path / "kit.pyz", [model]):
            pass

    assert "it has not the 8 bytes" in outcome(unpack)


@pytest.mark.parametrize("member", [f"../{KEY}.onnx", f"/models/{KEY}.onnx"])
def test_a_member_of_another_name_is_not_unpacked(member, tmp_path):
    model = kit_of(tmp_path / "kit.pyz", member, bytes(8))

    def unpack():
        with unpacked(tmp_path / "kit.pyz", [model]):
            pass

    assert "is damaged" in outcome(unpack)
    assert os.listdir(tmp_path) == ["kit.pyz"]


def model_with(location, where):
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    constant = onnx.NodeProto(op_type="Constant", output=["w"])
    constant.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=tensor)
    nodes, weights = [helper.make_node("Add", ["x", "w"], ["y"])], [tensor]
    if where == "attribute":
        nodes, weights = [constant, *nodes], []
    if where == "branch":
        branch = helper.make_graph([constant], "branch", [], [])
        nodes = [helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)]
        weights = []
    return helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], weights),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


@pytest.mark.parametrize("where", ["weight", "attribute", "branch"])
@pytest.mark.parametrize("location", ["../secret", "/dev/zero", "link", "a/../../secret", ""])
def test_a_model_reads_nothing_outside_of_its_folder(where, location, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(16))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    path = folder / "model.onnx"
    path.write_bytes(model_with(location, where).SerializeToString())
    (row,) = hwsearch.measure([path], device="ort-cpu:threads=1").to_dict("records")
    assert "outside of its folder" in row["error"]


def test_numbers_beside_a_model_are_its_own(tmp_path):
    assert stray_data(model_with("weights.bin", "weight"), Path(tmp_path)) is None
