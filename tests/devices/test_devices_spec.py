import subprocess
import sys

import pytest

from hwsearch.devices import DeviceFactory, DeviceOption, device_names, load_device, load_factory
from hwsearch.devices.fingerprint import choose_cpus, cpu_fingerprint, digest
from hwsearch.devices.spec import canonical_spec, parse_options, split_spec
from hwsearch.errors import InputError
from hwsearch.machine import usable_cpus

OPTIONS = (
    DeviceOption(name="threads", default=1, help="threads", high=4, shown=True),
    DeviceOption(name="batch", default=1, help="batch size"),
    DeviceOption(name="precision", default="fp32", help="of the file", allowed=("fp32", "int8")),
)
FACTORY = DeviceFactory(name="ort-x", create=dict, available=lambda: None, options=OPTIONS)


@pytest.mark.parametrize(
    ("written", "spec", "slug"),
    [
        ("ort-x", "ort-x:threads=1", "ort-x-threads1"),
        ("ort-x:threads=2", "ort-x:threads=2", "ort-x-threads2"),
        ("ort-x: batch=1 , threads=2", "ort-x:threads=2", "ort-x-threads2"),
        (
            "ort-x:precision=int8,batch=8",
            "ort-x:threads=1,batch=8,precision=int8",
            "ort-x-threads1-batch8-precisionint8",
        ),
    ],
)
def test_equal_devices_are_written_equally(written, spec, slug):
    _, given = split_spec(written)
    values = parse_options(FACTORY, given)
    assert canonical_spec(FACTORY, values) == (spec, slug)
    assert parse_options(FACTORY, split_spec(spec)[1]) == values


@pytest.mark.parametrize(
    ("written", "reasons"),
    [
        ("ort-x:thread=2", ["'thread'", "Did you mean 'threads'?", "batch"]),
        ("ort-x:threads=0", ["'threads'", "from 1 to 4", "'0'"]),
        ("ort-x:threads=5", ["from 1 to 4", "'5'"]),
        ("ort-x:threads=two", ["whole number", "'two'"]),
        ("ort-x:threads=1.5", ["whole number", "'1.5'"]),
        ("ort-x:batch=-1", ["'batch'", "from 1,"]),
        ("ort-x:precision=int9", ["precision", "fp32, int8", "Did you mean 'int8'?"]),
        ("ort-x:threads", ["OPTION=VALUE", "'threads'"]),
        ("ort-x:threads=", ["OPTION=VALUE"]),
        ("ort-x:", ["OPTION=VALUE"]),
        ("ort-x:threads=1,threads=2", ["twice", "'threads'"]),
        (":threads=1", ["no name"]),
        ("", ["no name"]),
    ],
)
def test_bad_specs_say_what_is_allowed(written, reasons):
    with pytest.raises(InputError) as raised:
        parse_options(FACTORY, split_spec(written)[1])
    for reason in reasons:
        assert reason in str(raised.value)


def test_the_built_in_device_comes_in_through_the_entry_point():
    assert "ort-cpu" in device_names()
    device = load_device("ort-cpu")
    assert (device.spec, device.slug) == ("ort-cpu:threads=1", "ort-cpu-threads1")
    assert load_device("ort-cpu:batch=4").slug == "ort-cpu-threads1-batch4"
    assert load_factory("ort-cpu").available() is None


def test_an_unknown_device_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="Did you mean 'ort-cpu'"):
        load_device("ort-cpus:threads=1")


def test_more_threads_than_cores_are_refused():
    with pytest.raises(InputError, match=f"to {len(usable_cpus())}"):
        load_device(f"ort-cpu:threads={len(usable_cpus()) + 1}")


def test_a_device_that_cannot_be_used_says_what_is_missing(monkeypatch):
    factory = DeviceFactory(name="ort-cpu", create=dict, available=lambda: "no such driver")
    monkeypatch.setattr("hwsearch.devices.load_factory", lambda name: factory)
    with pytest.raises(InputError, match="no such driver"):
        load_device("ort-cpu")


def test_importing_devices_is_light():
    heavy = "{'onnx', 'onnxruntime', 'pandas', 'torch', 'scipy', 'sklearn'}"
    code = f"import sys, hwsearch.devices; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_cpus_are_chosen_from_the_top_and_from_different_cores(monkeypatch, tmp_path):
    for cpu, siblings in enumerate(["0,1", "0,1", "2,3", "2,3"]):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    monkeypatch.setattr("hwsearch.devices.fingerprint._SYSTEM", tmp_path)
    monkeypatch.setattr("hwsearch.devices.fingerprint.usable_cpus", lambda: [0, 1, 2, 3])
    assert choose_cpus(1) == [3]
    assert choose_cpus(2) == [1, 3]
    assert choose_cpus(3) == [1, 2, 3]


def test_the_processor_is_described_even_where_the_system_says_nothing(monkeypatch, tmp_path):
    described = cpu_fingerprint()
    assert described["cores"] >= 1
    monkeypatch.setattr("hwsearch.devices.fingerprint._CPUINFO", tmp_path / "none")
    monkeypatch.setattr("hwsearch.devices.fingerprint.cpu_instructions", frozenset)
    assert cpu_fingerprint()["instructions"] == "unknown"


def test_digest_changes_with_anything():
    assert digest({"a": 1, "b": "x"}) == digest({"b": "x", "a": 1})
    assert len({digest(f) for f in ({"a": 1}, {"a": 2}, {"a": "1"}, {"b": 1})}) == 4
