"""Every name of TensorRT that is used exists in its Python bindings; they need no GPU for that.

The package ``tensorrt-cu13-bindings`` is enough: the libraries that it loads are stood in for.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import hwsearch.devices

SOURCE = Path(hwsearch.devices.__file__).with_name("tensorrt_runtime.py")
METHODS = {
    "Builder": "create_network create_builder_config create_optimization_profile "
    "build_serialized_network",
    "IBuilderConfig": "clear_flag add_optimization_profile create_timing_cache set_timing_cache "
    "get_timing_cache",
    "IOptimizationProfile": "set_shape",
    "ITimingCache": "serialize",
    "INetworkDefinition": "num_inputs get_input",
    "ITensor": "name dtype shape",
    "OnnxParser": "parse num_errors get_error",
    "ParserError": "desc",
    "Runtime": "deserialize_cuda_engine",
    "ICudaEngine": "create_execution_context num_io_tensors get_tensor_name get_tensor_mode "
    "get_tensor_dtype",
    "IExecutionContext": "set_input_shape get_tensor_shape set_tensor_address execute_async_v3",
}
STAND_INS = """
import sys
def chain(root, names):
    for name in names.split("."):
        root = getattr(root, name)
    return root
import json, tensorrt_bindings as trt
missing = []
for name in json.loads(sys.argv[1]):
    try:
        chain(trt, name)
    except AttributeError:
        missing.append(name)
print(json.dumps(missing))
"""


def used_names():
    """What the source takes out of the module ``trt``, as dotted names."""
    found = set()
    for node in ast.walk(ast.parse(SOURCE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if re.fullmatch(r"trt(\.\w+)+", text):
                found.add(text.removeprefix("trt."))
    return {name for name in found if not any(each.startswith(f"{name}.") for each in found)}


def test_the_listed_methods_are_those_in_use():
    text = SOURCE.read_text(encoding="utf-8")
    for names in METHODS.values():
        for name in names.split():
            assert re.search(rf"\.{name}\b", text), name
    assert "Builder" in used_names()


def test_every_name_exists_in_the_bindings(tmp_path):
    spec, compiler = find_spec("tensorrt_bindings"), shutil.which("cc")
    if spec is None or compiler is None:
        pytest.skip("needs the package tensorrt-cu13-bindings and a C compiler")
    binary = next(Path(spec.origin).parent.glob("tensorrt*.so")).read_bytes()
    entries = {*re.findall(rb"(?:create|get)\w*(?:_INTERNAL|Registry|Version)\b", binary)}
    source = tmp_path / "stand_in.c"
    functions = [each.decode() for each in entries] + ["initLibNvInferPlugins"]
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in functions))
    for needed in set(re.findall(rb"libnv\w+\.so\.\d+", binary)):
        library = tmp_path / needed.decode()
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    methods = {f"{owner}.{name}" for owner, names in METHODS.items() for name in names.split()}
    done = subprocess.run(
        [sys.executable, "-c", STAND_INS, json.dumps(sorted(used_names() | methods))],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
