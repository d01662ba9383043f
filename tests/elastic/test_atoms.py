"""Layers of atoms: reshapes, and which atoms are equal in the end."""

import numpy as np
import pytest

from hwsearch.elastic.analysis.atoms import Atoms, compressed, reshaped


@pytest.mark.parametrize(
    ("old", "layer", "new", "expected"),
    [
        ((1, 4, 3, 3), (1, 4, 1, 1), (1, 36), (1, 36)),
        ((1, 4, 3, 3), (1, 4, 1, 1), (1, 4, 9), (1, 4, 1)),
        ((1, 4, 3, 3), (1, 4, 1, 1), (1, 2, 2, 3, 3), (1, 2, 2, 1, 1)),
        ((1, 4, 3, 3), (1, 4, 1, 1), (1, 2, 18), (1, 2, 18)),
        ((1, 36), (1, 36), (1, 4, 3, 3), (1, 4, 3, 3)),
        ((1, 5, 12), (1, 1, 12), (5, 12), (1, 12)),
        ((1, 5, 12), (1, 1, 12), (1, 5, 3, 2, 2), (1, 1, 3, 2, 2)),
        ((1, 5, 12), (1, 1, 12), (5, 1, 12, 1), (1, 1, 12, 1)),
        ((5, 1, 4, 3), (1, 1, 4, 3), (5, 12), (1, 12)),
        ((12,), (12,), (1, 12, 1), (1, 12, 1)),
        ((1, 12, 1), (1, 12, 1), (12,), (12,)),
    ],
)
def test_reshaped_layers_broadcast_as_reshaped_values(old, layer, new, expected):
    atoms = np.arange(1, 1 + np.prod(layer)).reshape(layer)
    found = reshaped(atoms, old, new)
    assert found.shape == expected
    whole = np.broadcast_to(atoms, old).reshape(new)
    np.testing.assert_array_equal(np.broadcast_to(found, new), whole)


def test_repeated_atoms_are_stored_once():
    layer = np.repeat(np.arange(4), 9).reshape(1, 4, 3, 3)
    assert compressed(layer).shape == (1, 4, 1, 1)


def test_components():
    atoms = Atoms()
    a, b, c = atoms.new(4), atoms.new(4), atoms.new(2)
    atoms.join(a, b, "sum")
    atoms.join_along(c, {0}, "norm")
    atoms.pin(a[:1], "output", "because")
    found = atoms.components()
    assert found[0] == 0
    assert found[a[0]] == found[b[0]] == 0
    assert (found[a[1:]] == found[b[1:]]).all()
    assert len(set(found[a[1:]])) == 3
    assert found[c[0]] == found[c[1]] != 0
    free = atoms.components(with_pins=False)
    assert free[a[0]] == free[b[0]] != 0


def test_what_is_joined_with_a_pinned_atom_is_pinned():
    atoms = Atoms()
    layer = atoms.new(3)
    atoms.join(layer, np.array([0, 0, layer[2]]), "padding")
    assert (atoms.components()[layer] == 0).tolist() == [True, True, False]
    assert atoms.pins[0].what == "padding"
