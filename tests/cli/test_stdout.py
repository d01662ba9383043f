"""Standard output holds results alone, whatever libraries print from Python, C and children."""

import io
import json
import os
import subprocess
import sys

import pytest

from hwsearch.cli.completion import complete_device
from hwsearch.cli.output import reserved_stdout, result_stream
from tests.devices import tiny_models

NOISE = """
import ctypes, logging, os, subprocess, sys, warnings
def noise():
    print("python")
    sys.stdout.write("write")
    os.write(1, b"descriptor\\n")
    ctypes.CDLL(None).puts(b"buffered in C")
    subprocess.run([sys.executable, "-c", "print('child')"], check=True)
    sys.__stdout__.write("original\\n"); sys.__stdout__.flush()
"""
RESERVED = f"""{NOISE}
from hwsearch.cli.output import reserved_stdout, result_stream
print("before")
with reserved_stdout():
    noise()
    print("result \\xb1", file=result_stream())
    with reserved_stdout():
        noise()
        print("inner", file=result_stream())
    noise()
print("after")
os.write(1, b"as before\\n")
"""


def python(code, **options):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, check=False, timeout=60, **options)


def test_results_alone_are_on_stdout():
    done = python(RESERVED, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().split("\n") == [
        "before", "result ±", "inner", "after", "as before", ""
    ]  # fmt: skip
    for text in (b"python", b"write", b"descriptor", b"buffered in C", b"child", b"original"):
        assert done.stderr.count(text) == 3


def test_the_stream_keeps_encoding_and_error_handler():
    done = python(RESERVED, env={**os.environ, "PYTHONIOENCODING": "ascii:backslashreplace"})
    assert done.returncode == 0, done.stderr
    assert b"result \\xb1" in done.stdout


def test_an_error_inside_gives_stdout_back():
    code = (
        "from hwsearch.cli.output import *\n"
        "try:\n    with reserved_stdout():\n        1 / 0\n"
        "except ZeroDivisionError:\n    print('back')"
    )
    assert python(code).stdout == b"back\n"


@pytest.mark.skipif(os.name != "posix", reason="closes descriptors")
def test_a_closed_stdout_is_no_error_and_no_file_takes_its_place(tmp_path):
    code = (
        f"{NOISE}\nos.close(1)\nfrom hwsearch.cli.output import *\n"
        "with reserved_stdout():\n"
        f"    with open({str(tmp_path / 'data')!r}, 'w') as file:\n"
        "        os.write(1, b'noise')\n        file.write('data')\n"
    )
    done = python(code, preexec_fn=None)
    assert b"noise" in done.stderr
    assert (tmp_path / "data").read_text() == "data"


def test_a_stream_that_is_no_descriptor_is_kept(monkeypatch, capfd):
    given = io.StringIO()
    monkeypatch.setattr(sys, "stdout", given)
    with reserved_stdout():
        print("library")  # noqa: T201
        os.write(1, b"descriptor\n")
        print("result", file=result_stream())
    assert given.getvalue() == "result\n"
    assert sys.stdout is given
    out, err = capfd.readouterr()
    assert out == ""
    assert "descriptor" in err


NOISY = """
import os
from hwsearch.devices import DeviceFactory
from hwsearch_test_plugin.scripted_device import FakeDevice
def noise():
    print("noise"); os.write(1, b"noise\\n")
noise()
class Noisy(FakeDevice):
    def __init__(self):
        noise()
        super().__init__(name="noisy")
    def measure(self, models, **options):
        noise()
        return super().measure(models, **options)
def available():
    noise()
DEVICE = DeviceFactory(name="noisy", create=Noisy, available=available)
"""


@pytest.fixture
def noisy(tmp_path):
    """Folder of a package whose device prints when it is imported, made and used."""
    info = tmp_path / "noisy-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: noisy\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hwsearch.devices]\nnoisy = noisy_device:DEVICE\n")
    (tmp_path / "noisy_device.py").write_text(NOISY)
    return tmp_path


def test_json_is_json_whatever_a_device_prints(noisy):
    model = tiny_models.conv(noisy / "a.onnx")
    path = os.pathsep.join([str(noisy), os.environ["PYTHONPATH"]])
    command = [sys.executable, "-m", "hwsearch", "measure", model, "--device", "noisy", "--json"]
    done = subprocess.run(
        command,
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )
    (row,) = json.loads(done.stdout)
    assert row["latency_ms"] > 0
    assert done.stderr.count(b"noise") >= 8


def test_completion_is_not_mixed_with_what_a_device_prints(noisy, monkeypatch, capfd):
    monkeypatch.syspath_prepend(noisy)
    assert complete_device("noisy:") == []
    assert capfd.readouterr().out == ""
