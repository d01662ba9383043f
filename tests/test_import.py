import subprocess
import sys

import pytest

HEAVY = [
    "torch",
    "onnx",
    "onnxruntime",
    "pandas",
    "pymoo",
    "sklearn",
    "matplotlib",
    "scipy",
    "plotly",
]


@pytest.mark.parametrize(
    "module",
    [
        "hwsearch",
        "hwsearch.cli",
        "hwsearch.space",
        "hwsearch.objectives",
        "hwsearch.trial_store",
    ],
)
def test_stays_light(module):
    code = f"import {module}, sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize("module", ["hwsearch.run.folder", "hwsearch.models.quantize"])
def test_the_runtime_is_left_to_devices_until_a_model_is_converted(module):
    code = f"import {module}, sys; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
