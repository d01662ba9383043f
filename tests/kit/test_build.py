"""What is in a kit, and that it is the engine's own code."""

import ast
import sys
import zipfile

import pytest

import hwsearch
import tests.run.search_parts as parts
from hwsearch.devices.anchor import ANCHOR_FILES, anchors
from hwsearch.errors import InputError
from hwsearch.kit.manifest import read_manifest
from hwsearch.kit.measuring_code import EMPTY
from tests.kit import kit_parts

ALLOWED = {"numpy", "hwsearch"}  # a runtime is imported by a worker process alone


# Of the standard library, what came after Python 3.10.
TOO_NEW = {
    "typing.Self", "typing.LiteralString", "typing.Never", "typing.assert_never",
    "typing.Required", "typing.NotRequired", "typing.Unpack", "typing.override",
    "enum.StrEnum", "enum.verify", "datetime.UTC", "contextlib.chdir", "itertools.batched",
    "hashlib.file_digest", "tomllib", "importlib.resources.abc", "asyncio.TaskGroup",
    "logging.getLevelNamesMapping", "operator.call", "math.cbrt", "math.exp2",
}  # fmt: skip


def sources(kit):
    with zipfile.ZipFile(kit) as archive:
        return {n: archive.read(n).decode() for n in archive.namelist() if n.endswith(".py")}


def imported(tree):
    """Modules that are imported when a module is; what type checkers alone see is left out."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_the_measuring_code_is_the_engines_own(real_kit):
    from importlib.resources import files

    for name, text in sources(real_kit).items():
        source = files("hwsearch").joinpath(*name.split("/")[1:])
        if name not in ("__main__.py", EMPTY):
            assert text == source.read_text(encoding="utf-8")
    with zipfile.ZipFile(real_kit) as archive:
        for name, content in zip(ANCHOR_FILES, anchors(), strict=True):
            assert archive.read(f"hwsearch/devices/{name}") == content


def test_what_the_kit_and_its_devices_import_is_in_it_or_on_the_device(real_kit):
    inside = sources(real_kit)
    trees = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): ast.parse(text)
        for name, text in inside.items()
    }
    devices = [value.partition(":")[0] for value in read_manifest(real_kit).devices.values()]
    waiting, seen = ["hwsearch.kit.main", "hwsearch.devices.worker", *devices], set()
    while waiting:
        module = waiting.pop()
        assert module in trees
        seen.add(module)
        for found in imported(trees[module]):
            top = found.partition(".")[0]
            assert top in ALLOWED | set(sys.stdlib_module_names), f"{module} imports {found}"
            if top == "hwsearch" and found not in seen:
                waiting.append(found)
    assert "hwsearch.devices.protocol" in seen


def test_every_module_in_it_is_for_python_3_10(real_kit):
    for name, text in sources(real_kit).items():
        used = set()
        for node in _run_on_import_or_later(ast.parse(text, feature_version=(3, 10))):
            if isinstance(node, ast.ImportFrom):
                used |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                used |= {alias.name for alias in node.names}
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used.add(f"{node.value.id}.{node.attr}")
        assert not used & TOO_NEW, name


def _run_on_import_or_later(tree):
    """Every node but those that only type checkers see."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        hidden = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        waiting += [] if hidden else ast.iter_child_nodes(node)


def test_equal_kits_are_equal_files(real_kit, tmp_path):
    again = hwsearch.make_kit(
        parts.NET, tmp_path / "again.pyz", subnets=8, settings=kit_parts.QUICK
    )
    assert (tmp_path / "again.pyz").read_bytes() == real_kit.read_bytes()
    assert again == read_manifest(real_kit)


def test_the_manifest_names_what_is_measured(real_kit):
    manifest, net = read_manifest(real_kit), kit_parts.supernet()
    assert (manifest.supernet, manifest.space) == (net.card.name, net.full_space.digest)
    assert "ort-cpu" in manifest.devices
    for model in manifest.models:
        arch = net.space.architectures([model.architecture])[0]
        assert model.key == arch.key
        chain = {block.name: block.spec for block in net.blocks(arch)}
        assert {name: manifest.specs[n] for name, n in model.blocks.items()} == chain


def test_models_are_small_in_it(real_kit):
    with zipfile.ZipFile(real_kit) as archive:
        models = [i for i in archive.infolist() if i.filename.startswith("models/")]
    assert len(models) == 8
    assert sum(i.compress_size for i in models) < sum(i.file_size for i in models) / 5


@pytest.mark.parametrize("subnets", [0, 7, 73])
def test_a_number_of_subnets_that_makes_no_sense_is_refused(subnets, tmp_path):
    with pytest.raises(InputError, match=f"subnets {subnets} is not from 8.*to the 72"):
        hwsearch.make_kit(parts.NET, tmp_path / "kit.pyz", subnets=subnets)
    assert not list(tmp_path.iterdir())


def test_a_kit_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*give another --out"):
        hwsearch.make_kit(parts.NET, tmp_path / "file" / "kit.pyz", subnets=8)
