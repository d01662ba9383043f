"""Sequences with equal first keys share nodes."""

import pytest

from hwsearch.prefix_tree import PrefixNode

WORDS = ["tea", "ten", "to", "te", "in", "ten"]


@pytest.fixture
def tree():
    tree = PrefixNode()
    for number, word in enumerate(WORDS):
        tree.insert((letter, number) for letter in word)
    return tree


def test_each_prefix_is_one_node_with_those_that_begin_with_it(tree):
    node = tree
    for letter, members in [("t", [0, 1, 2, 3, 5]), ("e", [0, 1, 3, 5]), ("n", [1, 5])]:
        node = node.children[letter]
        assert node.items == members
    prefixes = {word[:end] for word in WORDS for end in range(1, len(word) + 1)}
    assert len(list(tree.descendants())) == len(prefixes)


def test_depth_first_keeps_equal_prefixes_next_to_each_other(tree):
    ordered = [WORDS[number] for node in tree.descendants() for number in node.ends]
    assert ordered == ["te", "tea", "ten", "ten", "to", "in"]


def test_a_segment_ends_where_sequences_branch_or_end(tree):
    (t, i) = tree.children.values()
    assert t.segment() == [t]
    assert i.segment() == [i, i.children["n"]]
    tree.insert((letter, 6) for letter in "inner")
    assert i.segment() == [i, i.children["n"]]


def test_insert_returns_the_path(tree):
    path = tree.insert((letter, 7) for letter in "tend")
    assert path[:3] == tree.children["t"].segment() + path[1:3]
    assert [len(node.items) for node in path] == [6, 5, 3, 1]
    assert PrefixNode().insert([]) == []


def test_long_sequences():
    tree = PrefixNode()
    tree.insert((number, number) for number in range(10_000))
    assert len(list(tree.descendants())) == len(next(iter(tree.children.values())).segment())
