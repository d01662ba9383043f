"""Check everything that the devices on NVIDIA GPUs promise, in at most 8 minutes.

    python tools/check_gpu.py [--wheels FOLDER] [--out FOLDER]

It needs Python, pip, torch and a driver, and tests those of ``ort-cuda``, ``tensorrt`` and
``ort-tensorrt`` whose packages install: from the folder alone with ``--wheels``, else as they are
installed, else from the index. They go into a temporary virtual environment, which uses the
machine's torch. Every part is a process with a time limit, its share of the time that is left; a
part that is cut off or fails does not stop the others. ``gpu-check.json`` and ``gpu-check.md`` are
written after each part, with the parts' output beside them in ``logs``. The exit code is 0 if
parts of a device passed, and none failed or was cut off.
"""

import argparse
import ctypes
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from clone import ROOT

LIMIT_S = 480.0
RESERVE_S = 15.0  # to end the last part and to remove the environment
KILL_S = 3.0
DRIVER = "libcuda.so.1"
DEVICES = ("ort-cuda", "tensorrt", "ort-tensorrt")
TESTS = "tests/devices/test_gpu_devices.py"
CLASSES = {"ort-cuda": "OrtCuda", "tensorrt": "TensorRt", "ort-tensorrt": "OrtTensorRt"}
PARTS = {  # what tells most comes first; shares of the time are about the expected seconds
    "files agree with PyTorch": ("files", 30),
    "contract tests": ("tests", 40),
    "fp32 against fp16": ("precisions", 25),
    "device time against end to end": ("transfers", 20),
    "A/A agreement": ("agreement", 35),
    "search and verify": ("search", 60),
}
INSTALLS = {"hwsearch": 60, "onnxruntime-gpu": 80, "tensorrt": 150}
ADDED = {
    "onnxruntime-gpu": "onnxruntime-gpu[cuda,cudnn]",  # torch may have them of another version
    "tensorrt": "tensorrt<11",  # for which ONNX Runtime's provider is built
}
NEEDS = {
    "ort-cuda": ("hwsearch", "onnxruntime-gpu"),
    "tensorrt": ("hwsearch", "tensorrt"),
    "ort-tensorrt": ("hwsearch", "onnxruntime-gpu", "tensorrt"),
}
SKIPPED, PASSED, FAILED, TIMED_OUT = "skipped", "passed", "failed", "timed out"
_ENDED = {SKIPPED: "is not here", FAILED: "failed", TIMED_OUT: "was cut off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row of the table: commands that run one after another.

    Attributes:
        device: Name of the device, empty for what is done once.
        share: Part of the time that is left, relative to the shares of the jobs after it.
        needs: Names of the jobs that must have passed before.
        optional: Whether a failure only skips the jobs that need it.
    """

    name: str
    commands: Sequence[Sequence[str]]
    share: float
    device: str = ""
    needs: tuple[str, ...] = ()
    optional: bool = False


def requirements(kept: Collection[str] = ()) -> dict[str, list[str]]:
    """Return what each of `INSTALLS` needs, as ``pyproject.toml`` declares it.

    torch stays the machine's; torchvision, which is bound to one version of it, is not needed.
    Those in ``kept`` are installed, and may stay of whichever version they are.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    base = [each for each in project["dependencies"] if not each.startswith("torch")]
    wanted = {
        "hwsearch": [*base, "pytest>=8.2", "pytest-timeout>=2.3", "hatchling>=1.25", "editables"],
        "onnxruntime-gpu": [*extras["gpu"]],
        "tensorrt": [*extras["tensorrt"]],
    }
    for name in ADDED.keys() - set(kept):
        wanted[name].append(ADDED[name])
    return wanted


def filling(folder: str) -> str:
    """Return the command that fills a folder for ``--wheels``."""
    wanted = [each for group in requirements().values() for each in group]
    return f"python -m pip wheel --wheel-dir {folder} {shlex.join(wanted)}"


def installed(package: str) -> bool:
    """Whether a package is installed for this interpreter."""
    with suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(package))
    return False


def make_environment(folder: Path) -> str:
    """Make a virtual environment in which this interpreter's packages are; return its Python.

    This interpreter may itself be of a virtual environment, whose packages are no system's.
    """
    builder = venv.EnvBuilder(system_site_packages=True, symlinks=True)
    builder.create(folder)
    places = [each for each in sys.path if each.endswith(("site-packages", "dist-packages"))]
    own = next(folder.glob("lib/python*/site-packages"))
    lines = [f"import site; site.addsitedir({place!r})\n" for place in places]
    (own / "machine.pth").write_text("".join(lines), encoding="utf-8")
    return str(folder / "bin" / "python")


def planned(python: str, wheels: Path | None, scratch: Path) -> Iterator[Job]:
    """Yield all jobs in their order."""
    pip = [python, "-m", "pip", "install", "--quiet", "--no-input", "--no-compile"]
    pip += ["--disable-pip-version-check"]
    offline = ["--no-index", "--find-links", str(wheels)] if wheels else []
    wanted = requirements(() if wheels else [name for name in INSTALLS if installed(name)])
    for name, share in INSTALLS.items():
        commands = [[*pip, *offline, *wanted[name]]]
        if name == "hwsearch":
            clone = ["--no-index", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]
            commands.append([*pip, *clone])
        if name == "tensorrt":  # fp16 files are written with ONNX Runtime, of whichever build
            commands.append([python, "-c", "import onnxruntime"])
        yield Job(
            name=name,
            commands=commands,
            share=share,
            needs=("hwsearch",) if name != "hwsearch" else (),
            optional=name != "hwsearch",
        )
    parts = [python, str(ROOT / "tools" / "gpu_parts.py")]
    yield Job(name="machine", commands=[[*parts, "machine"]], share=15, needs=("hwsearch",))
    for name, (part, share) in PARTS.items():
        for device in DEVICES:
            command = [*parts, part, device, str(scratch)]
            if part == "tests":
                command = [python, "-m", "pytest", "-q", "-m", "gpu", "-rfE", "--tb=short"]
                chosen = [f"Test{CLASSES[device]}", f"Test{CLASSES[device]}Half"]
                if device != "ort-cuda":
                    chosen.append(f"test_engines_are_built_once[{device}]")
                command += ["-p", "no:cacheprovider", *(f"{TESTS}::{each}" for each in chosen)]
            needs = (*NEEDS[device], "machine")
            yield Job(name=name, device=device, commands=[command], share=share, needs=needs)


def run(commands: Sequence[Sequence[str]], limit_s: float, log: Path, scratch: Path) -> int | None:
    """Run commands as long as they succeed; return the last exit code, None at the time limit.

    Whatever they have started ends with them. Output goes to a file, as a pipe that an unkillable
    process holds would never end.
    """
    deadline = time.monotonic() + limit_s
    own = {f"HWSEARCH_{name}": str(scratch / name.lower()) for name in ("CACHE", "HOME")}
    code: int | None = 0
    with log.open("wb") as output:
        for command in commands:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **own},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                code = process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                code = None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=KILL_S)
            if code != 0:
                break
    return code


def done(job: Job, code: int | None, log: Path) -> dict[str, Any]:
    """Return outcome, figures and reason of a job that has run."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
    found: dict[str, Any] = {}
    if lines[-1].startswith("{"):
        with suppress(ValueError):
            found = json.loads(lines[-1])
    counts = re.findall(r"(\d+) (passed|failed|errors?)\b", lines[-1])
    figures = found.get("figures") or {f"tests {name}": int(count) for count, name in counts}
    reasons = list(found.get("wrong", ()))
    reasons += [each for each in lines if each.startswith(("FAILED", "ERROR", "error:"))]
    outcome = {None: TIMED_OUT, 0: PASSED}.get(code, SKIPPED if job.optional else FAILED)
    reason = "; ".join(reasons[:3]) or f"exit code {code}: {lines[-1]}"
    if outcome == PASSED:
        reason = ""
    elif outcome == TIMED_OUT:
        reason = f"cut off; its last line: {lines[-1]}"
    return {"outcome": outcome, "figures": figures, "reason": reason[:600]}


def lacking(job: Job, results: Sequence[dict[str, Any]]) -> str:
    """Return why a job cannot run, empty where it can."""
    for each in results:
        if each["part"] in job.needs and not each["device"] and each["outcome"] != PASSED:
            return f"{each['part']}, which it needs, {_ENDED[each['outcome']]}"
    return ""


def check(wheels: Path | None, out: Path) -> dict[str, Any]:
    """Run all jobs within the time limit, and return what is written."""
    began = time.monotonic()
    report: dict[str, Any] = {
        "schema": 1,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"system": platform.platform(), "python": platform.python_version()},
        "parts": [],
    }
    (out / "logs").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="hwsearch-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        jobs = list(planned(make_environment(scratch / "environment"), wheels, scratch))
        for position, job in enumerate(jobs):
            shares = [each.share for each in jobs[position:] if not lacking(each, report["parts"])]
            left_s = began + LIMIT_S - RESERVE_S - time.monotonic()
            result = {"part": job.name, "device": job.device, "seconds": 0.0, "limit_s": 0.0}
            if reason := lacking(job, report["parts"]):
                result |= {"outcome": SKIPPED, "figures": {}, "reason": reason}
            else:
                limit_s = max(0.0, left_s * job.share / sum(shares))
                named = re.sub(r"\W+", "-", f"{position:02}-{job.name}-{job.device}").strip("-")
                log, start = out / "logs" / f"{named}.txt", time.monotonic()
                result |= done(job, run(job.commands, limit_s, log, scratch), log)
                result |= {"seconds": time.monotonic() - start, "limit_s": limit_s}
            if job.name == "machine":
                report["machine"] |= result["figures"]
            report["parts"].append(result)
            report["seconds"] = time.monotonic() - began
            write(report, out)
            label = f"{job.name} {job.device}".strip()
            print(f"{report['seconds']:5.0f} s  {result['outcome']:9}  {label}", flush=True)
    return report


def table(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    lines = ["# GPU check", ""]
    lines += [f"- {name}: {value}" for name, value in report["machine"].items()]
    lines += ["", f"{report['seconds']:.0f} s in all.", ""]
    lines += ["| part | device | outcome | s | of s | figures and reasons |"]
    lines += ["| --- | --- | --- | ---: | ---: | --- |"]
    for each in report["parts"]:
        figures = [
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in each["figures"].items()
            if each["part"] != "machine"
        ]
        told = "; ".join(filter(None, [*figures, each["reason"]])).replace("|", "\\|")
        lines.append(
            f"| {each['part']} | {each['device']} | {each['outcome']} | {each['seconds']:.0f} | "
            f"{each['limit_s']:.0f} | {' '.join(told.split())} |"
        )
    return "\n".join([*lines, ""])


def write(report: dict[str, Any], out: Path) -> None:
    """Write both files."""
    text = json.dumps(report, indent=1)
    (out / "gpu-check.json").write_text(text + "\n", encoding="utf-8")
    (out / "gpu-check.md").write_text(table(report), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, check and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="This fills a folder, on a machine with the same system and Python and with a "
        f"network:\n\n    {filling('FOLDER')}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--wheels", type=Path, help="folder of wheels; nothing is downloaded")
    parser.add_argument(
        "--out", type=Path, default=Path("gpu-check"), help="folder of the results"
    )
    given = parser.parse_args(arguments)
    if given.wheels is not None and not any(given.wheels.glob("*.whl")):
        parser.error(
            f"there is no wheel in {str(given.wheels)!r}; fill it where there is a network:\n"
            f"{filling(str(given.wheels))}"
        )
    if lacks := [name for name in ("pip", "torch") if find_spec(name) is None]:
        parser.error(f"{sys.executable} has no {' and no '.join(lacks)}; install it first")
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        parser.error(
            f"there is no NVIDIA driver ({DRIVER} cannot be loaded); run this on a machine "
            "where nvidia-smi lists a GPU"
        )
    wheels = given.wheels and given.wheels.resolve()
    report = check(wheels, given.out.resolve())
    print(f"\n{table(report)}")
    outcomes = {(bool(each["device"]), each["outcome"]) for each in report["parts"]}
    bad = any(outcome in (FAILED, TIMED_OUT) for _, outcome in outcomes)
    return 1 if bad or (True, PASSED) not in outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
