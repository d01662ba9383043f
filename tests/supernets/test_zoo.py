import sys

import pytest

from hwsearch import load_supernet, supernet_names
from hwsearch.errors import InputError
from hwsearch.supernets.zoo import load_family

MODULE = """
from hwsearch_test_plugin.tokens import FAMILY

def make(checkpoint):
    return FAMILY.load(checkpoint)

def broken(checkpoint):
    return object()
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """A user's file in the working directory."""
    (tmp_path / "my_own_supernet.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "my_own_supernet"
    sys.modules.pop("my_own_supernet", None)


def test_families_of_installed_packages_are_there():
    assert {"cifar10-resnet", "test-images", "test-tokens"} <= set(supernet_names())
    assert supernet_names() == sorted(supernet_names())


def test_unknown_name_tells_the_nearest():
    with pytest.raises(InputError) as caught:
        load_supernet("cifar10-resnt")
    assert "unknown supernet 'cifar10-resnt'" in str(caught.value)
    assert "Did you mean 'cifar10-resnet'?" in str(caught.value)
    assert "test-tokens" in str(caught.value)
    with pytest.raises(InputError, match="unknown supernet"):
        load_family("")


def test_module_and_function(own_module):
    net = load_supernet(f"{own_module}:make", checkpoint="random:3")
    assert net.name == f"{own_module}:make"
    assert net.card.name == "test-tokens"
    assert net.digest == load_supernet("test-tokens", "random:3").digest


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("no_such_module_at_all:make", "cannot import 'no_such_module_at_all'"),
        ("my_own_supernet:mak", "module 'my_own_supernet' has no 'mak'"),
        ("my_own_supernet:", "is not of the form module:function"),
        (":make", "is not of the form module:function"),
        ("my_own_supernet:broken", "lacks space, card, digest, recalibrate, subnet"),
    ],
)
def test_module_and_function_that_are_none(own_module, spec, says):
    with pytest.raises(InputError, match=says) as caught:
        load_supernet(spec)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize("checkpoint", ["random:", "random:-1", "random:x", "random:1.5"])
@pytest.mark.parametrize("name", supernet_names())
def test_seed_that_is_none(name, checkpoint):
    with pytest.raises(InputError, match="write random:SEED with an integer"):
        load_supernet(name, checkpoint)


def test_without_a_checkpoint_the_shipped_weights_are_loaded():
    net = load_supernet("test-tokens")
    assert net.checkpoint is None
    assert net.digest == load_supernet("test-tokens", "random:0").digest


def test_entry_point_that_cannot_be_imported(monkeypatch):
    from importlib.metadata import EntryPoint

    points = [EntryPoint("gone", "no_such_module_at_all:FAMILY", "hwsearch.supernets")]
    monkeypatch.setattr("hwsearch.plugins.entry_points", lambda group: points)
    with pytest.raises(InputError, match=r"no_such_module_at_all:FAMILY.*Reinstall"):
        load_supernet("gone")


def test_name_registered_twice(monkeypatch):
    from importlib.metadata import EntryPoint

    points = [EntryPoint("one", f"package_{n}:FAMILY", "hwsearch.supernets") for n in "ab"]
    monkeypatch.setattr("hwsearch.plugins.entry_points", lambda group: points)
    with pytest.raises(InputError, match=r"'one' is registered twice.*package_a.*package_b"):
        supernet_names()
