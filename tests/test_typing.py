"""What a type checker tells a user of hwsearch: none of our mistakes, and all of theirs."""

import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # it reads the types of torch

SCRIPT = """\
import hwsearch
from hwsearch.devices.base import Device
from hwsearch.testing import check_supernet

net = hwsearch.load_supernet("cifar10-resnet")
archs: hwsearch.Architectures = net.space.sample(3, seed=0)
keys: list[str] = [arch.key for arch in archs]
total: int = int(net.exact("macs", archs).sum())
check_supernet(net.network)


def evaluate(archs: hwsearch.Architectures) -> list[dict[str, float]]:
    return [{"score": float(len(arch.key))} for arch in archs]


space = hwsearch.SearchSpace([hwsearch.Choice("depth", (1, 2, 3))])
result = hwsearch.optimize(space, evaluate, [hwsearch.Objective("score", "max")], budget=3)
device: Device = hwsearch.load_device("ort-cpu:threads=1")
run: hwsearch.Run = hwsearch.search(net, device="ort-cpu", constraints=["latency <= 1"])
knee: str = run.select("knee")[0]
training: bool = run.subnet(knee).training
mean, deviation = hwsearch.Predictor(net.space).fit(archs, [1.0, 2.0, 3.0]).predict(archs)
"""
MISTAKES = {
    "hwsearch.serach()": 'Module has no attribute "serach"',
    "hwsearch.search(budgte=3)": 'Unexpected keyword argument "budgte"',
    'hwsearch.search(budget="3")': 'incompatible type "str"',
    "hwsearch.Run(3).front": 'incompatible type "int"',
}


def checked(folder, text):
    (folder / "script.py").write_text(text, encoding="utf-8")
    args = [sys.executable, "-m", "mypy", "--strict", "--no-color-output", "script.py"]
    process = subprocess.run(args, cwd=folder, capture_output=True, text=True)
    return process.stdout


def test_a_script_passes_in_strict_mode_and_its_mistakes_are_found(tmp_path):
    assert checked(tmp_path, SCRIPT).startswith("Success")
    printed = checked(tmp_path, "\n".join(["import hwsearch", *MISTAKES]))
    lines = [line for line in printed.splitlines() if ": error: " in line]
    for line, said in zip(lines, MISTAKES.values(), strict=True):
        assert said in line
