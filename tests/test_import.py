import os
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


@pytest.mark.parametrize("module", ["hwsearch.run.search", "hwsearch.models.quantize"])
def test_the_runtime_is_left_to_devices_until_a_model_is_converted(module):
    code = f"import {module}, sys; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("given", [None, "0"])
def test_the_runtime_sends_no_usage_data_unless_the_user_wants_it(given):
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    env |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
    code = "import hwsearch, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == (given or "1")
