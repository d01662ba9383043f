import ast
from pathlib import Path

import pytest

import hwsearch

# Promised to users: none of these goes away or changes its name.
PROMISED = {
    "Choice", "SearchSpace", "Architecture", "Architectures", "Objective", "Constraint",
    "optimize", "Optimizer", "Predictor", "load_supernet",
    "elastify", "cut", "supernet_names", "import_checkpoint",
    "load_task", "Task", "Metric", "Samples", "to_onnx", "load_device", "measure",
    "search", "resume", "confirm", "Run", "make_kit", "HwsearchError", "InputError",
    "InfeasibleError",
}  # fmt: skip


@pytest.mark.parametrize("name", hwsearch.__all__)
def test_every_exported_name_resolves(name):
    member = getattr(hwsearch, name)
    assert member.__name__ == name
    assert member.__module__.startswith("hwsearch.")
    assert member.__doc__


def test_promises_are_kept():
    assert set(hwsearch.__all__) >= PROMISED
    assert len(hwsearch.__all__) == len(set(hwsearch.__all__))
    assert set(hwsearch.__all__) <= set(dir(hwsearch))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(hwsearch.__file__).read_text(encoding="utf-8"))
    block, _ = (node for node in tree.body if isinstance(node, ast.If))  # for them; not for them
    seen = {alias.name: node.module for node in block.body for alias in node.names}
    assert set(seen) == set(hwsearch.__all__)
    assert {name: f"hwsearch.{home}" for name, home in hwsearch._HOMES.items()} == seen


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'serach'"):
        _ = hwsearch.serach
