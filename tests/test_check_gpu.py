"""tools/check_gpu.py on a machine whose driver, TensorRT, CUDA and NVML are stand-ins.

There is no wheel of onnxruntime-gpu, so that two of the three devices do not install.
"""

import ctypes
import json
import os
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import check_gpu
import pytest

FAKES = Path(__file__).parent / "devices" / "fake_nvidia"
DRIVER = """
import ctypes

class Driver:
    def cuInit(self, flags):
        return 0

    def cuDeviceGetCount(self, place):
        place._obj.value = 1
        return 0

real = ctypes.CDLL
ctypes.CDLL = lambda name, *rest, **named: (
    Driver() if name == "libcuda.so.1" else real(name, *rest, **named)
)
"""
NVML = """
NVML_CLOCK_SM = 1
class NVMLError(Exception): pass
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(gpu): return "NVIDIA Stand-in"
def nvmlSystemGetDriverVersion(): return "580.1"
def nvmlDeviceGetMaxClockInfo(gpu, kind): return 1980
def nvmlDeviceGetClockInfo(gpu, kind): return 1980
def nvmlDeviceGetEnforcedPowerLimit(gpu): return 700_000
def nvmlDeviceGetCurrentClocksThrottleReasons(gpu): return 0
"""


def wheel(folder, name, version, files):
    """Write a wheel of Python files, given as text by name."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as file:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            file.writestr(path, text)


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder of wheels, and a driver in this process and in those that it starts."""
    folder = tmp_path / "wheels"
    fakes = {str(path.relative_to(FAKES)): path.read_text() for path in FAKES.rglob("*.py")}
    cuda = {name: fakes[name] for name in fakes if name.startswith("cuda")}
    wheel(folder, "tensorrt", "10.9.0", {"tensorrt.py": fakes["tensorrt.py"]})
    wheel(folder, "cuda_bindings", "13.0.0", cuda)
    wheel(folder, "nvidia_ml_py", "13.0.0", {"pynvml.py": NVML})
    # Before what is installed: the real package cuda-bindings may be.
    shutil.copytree(FAKES / "cuda", tmp_path / "driver" / "cuda")
    (tmp_path / "driver" / "sitecustomize.py").write_text(DRIVER)
    path = os.pathsep.join([str(tmp_path / "driver"), os.environ["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", path)
    real = ctypes.CDLL
    monkeypatch.setattr(
        ctypes, "CDLL", lambda name, *rest: name == check_gpu.DRIVER or real(name, *rest)
    )
    return folder


@pytest.fixture
def checked(wheels, tmp_path, monkeypatch):
    """Run the tool with scripts in place of parts, by name; return exit code and rows."""

    def run(scripts):
        real = check_gpu.planned

        def planned(python, *given):
            for job in real(python, *given):
                if job.name in scripts:
                    job = replace(job, commands=[[python, "-c", scripts[job.name]]])
                yield job

        monkeypatch.setattr(check_gpu, "planned", planned)
        code = check_gpu.main(["--wheels", str(wheels), "--out", str(tmp_path / "out")])
        report = json.loads((tmp_path / "out" / "gpu-check.json").read_text())
        rows = {(each["part"], each["device"]): each for each in report["parts"]}
        assert len(rows) == len(report["parts"]) == 4 + 6 * 3
        assert report["machine"]["gpu"] == "NVIDIA Stand-in"
        assert report["seconds"] <= check_gpu.LIMIT_S
        for (_, device), row in rows.items():
            if device.startswith("ort-"):
                assert row["outcome"] == "skipped"
                assert "onnxruntime-gpu, which it needs, is not here" in row["reason"]
        return code, rows

    return run


def alive(pid):
    """Whether a process runs; one that has ended may wait for its parent."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


PASS = 'print(\'{"figures": {"ms": 1.5}}\')'
BEGINNING = {  # what installs packages and describes the machine
    "hwsearch": PASS,
    "tensorrt": PASS,
    "onnxruntime-gpu": "raise SystemExit('no such wheel')",
    "machine": 'print(\'{"figures": {"gpu": "NVIDIA Stand-in"}}\')',
}


def test_a_part_that_hangs_and_one_that_fails_do_not_stop_the_others(
    checked, tmp_path, monkeypatch, capsys
):
    pids = tmp_path / "pids"
    hang = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(999)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('waiting', flush=True)\n"
        "time.sleep(999)"
    )
    fail = 'print(\'{"figures": {}, "wrong": ["fp16 | deviates"]}\'); raise SystemExit(1)'
    monkeypatch.setitem(check_gpu.PARTS, "contract tests", ("tests", 1))
    monkeypatch.setattr(check_gpu, "make_environment", lambda folder: sys.executable)
    scripts = BEGINNING | dict.fromkeys(check_gpu.PARTS, PASS)
    code, rows = checked(scripts | {"contract tests": hang, "fp32 against fp16": fail})
    assert code == 1
    found = {part: row["outcome"] for (part, device), row in rows.items() if device == "tensorrt"}
    assert found == {
        **dict.fromkeys(check_gpu.PARTS, "passed"),
        "contract tests": "timed out",
        "fp32 against fp16": "failed",
    }
    hung = rows["contract tests", "tensorrt"]
    assert hung["limit_s"] <= hung["seconds"]
    assert "waiting" in hung["reason"]
    assert not any(alive(pid) for pid in pids.read_text().split())
    written = (tmp_path / "out" / "gpu-check.md").read_text()
    assert written in capsys.readouterr().out
    assert "| fp32 against fp16 | tensorrt | failed |" in written
    assert "fp16 \\| deviates |" in written
    assert "| ms 1.5 |" in written


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_parts_run_on_the_stand_ins(checked, monkeypatch):
    monkeypatch.setattr(check_gpu, "LIMIT_S", 1700.0)  # a processor is no GPU
    code, rows = checked({})
    files = rows["files agree with PyTorch", "tensorrt"]
    assert files["outcome"] == "passed"
    assert 0 < files["figures"]["fp32 deviation"] < files["figures"]["fp16 deviation"] < 1e-2
    assert rows["contract tests", "tensorrt"]["outcome"] == "passed"
    assert rows["contract tests", "tensorrt"]["figures"]["tests passed"] > 30
    assert rows["search and verify", "tensorrt"]["outcome"] == "passed"
    assert rows["search and verify", "tensorrt"]["figures"]["members of the front"] > 0
    for name in ("fp32 against fp16", "device time against end to end", "A/A agreement"):
        row = rows[name, "tensorrt"]  # it passes or fails by the clock
        assert row["figures"]
        assert code == 1 or row["outcome"] == "passed"


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        check_gpu.main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


def test_a_folder_without_wheels_is_refused_with_what_fills_it(tmp_path, capsys):
    told = refused(capsys, "--wheels", str(tmp_path))
    assert f"there is no wheel in {str(tmp_path)!r}" in told
    assert f"python -m pip wheel --wheel-dir {tmp_path} " in told
    assert "'onnxruntime-gpu>=" in told
    assert "'torch" not in told


def test_a_machine_without_a_driver_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(check_gpu, "DRIVER", "libnone.so.1")
    assert "there is no NVIDIA driver (libnone.so.1 cannot be loaded)" in refused(capsys)


def test_limits_leave_time_for_all_parts_whatever_hangs(tmp_path, monkeypatch):
    """Every part takes all that it is given."""
    now = [0.0]
    monkeypatch.setattr(check_gpu.time, "monotonic", lambda: now[0])

    def run(commands, limit_s, log, scratch):
        now[0] += limit_s
        log.write_text("")
        limits.append(limit_s)
        return 0

    limits = []
    monkeypatch.setattr(check_gpu, "run", run)
    report = check_gpu.check(None, tmp_path)
    assert {each["outcome"] for each in report["parts"]} == {"passed"}
    assert sum(limits) == pytest.approx(check_gpu.LIMIT_S - check_gpu.RESERVE_S)
    assert min(limits) > 5
