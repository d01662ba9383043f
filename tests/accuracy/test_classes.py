"""Which output of the supernet a folder's name stands for."""

import pytest

from hwsearch.accuracy.classes import classes_of_folders
from hwsearch.errors import InputError

NUMBERED = tuple(str(number) for number in range(1000))


def decide(root, names, classes=()):
    indices, warnings = classes_of_folders(root, names, classes)
    assert warnings == ()
    return indices


def test_sorted_names_are_the_classes(tmp_path):
    assert decide(tmp_path, ["ant", "bee"], ("x", "y")) == {"ant": 0, "bee": 1}
    assert decide(tmp_path, ["ant", "bee"]) == {"ant": 0, "bee": 1}


def test_names_of_the_supernet_decide(tmp_path):
    classes = ("cat", "ant", "bee")
    assert decide(tmp_path, ["ant", "bee", "cat"], classes) == {"ant": 1, "bee": 2, "cat": 0}
    assert decide(tmp_path, ["ant", "cat"], classes) == {"ant": 1, "cat": 0}


@pytest.mark.parametrize("classes", [NUMBERED, tuple(f"name {n}" for n in NUMBERED), ()])
def test_whole_numbers_are_the_indices(tmp_path, classes):
    assert decide(tmp_path, ["10", "9", "999"], classes) == {"10": 10, "9": 9, "999": 999}
    assert decide(tmp_path, ["007", "017"], classes) == {"007": 7, "017": 17}


def test_a_whole_number_that_is_no_class(tmp_path):
    with pytest.raises(InputError, match=r"class 1000, but the supernet's classes are 0 to 999"):
        decide(tmp_path, ["1000", "3"], NUMBERED)
    with pytest.raises(InputError, match=r"class -1, but the supernet's classes count from 0"):
        decide(tmp_path, ["-1"])


def test_listed_classes_decide_before_all_else(tmp_path):
    (tmp_path / "classes.txt").write_text("cat 281 tabby, tabby cat\nbee,309\n\t7 \nant\n\n")
    assert decide(tmp_path, ["7", "ant", "cat"], NUMBERED) == {"7": 2, "ant": 3, "cat": 0}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "ant\ncat\n",
            r"class folder 'bee' is not in '.*classes.txt', which lists 2 \(ant, cat\)",
        ),
        ("ant\nbee\nant\n", r"classes.txt': line 3 names 'ant' again"),
        ("ant\n\nbee\n", r"classes.txt': line 2 is empty"),
        ("ant\nbee\ncat\ndog\n", r"classes.txt' lists 4 classes, but the supernet knows 3"),
    ],
)
def test_a_list_that_does_not_fit(tmp_path, text, says):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(InputError, match=says):
        decide(tmp_path, ["ant", "bee"], ("x", "y", "z"))


def test_more_folders_than_classes(tmp_path):
    with pytest.raises(InputError, match="has 3 class folders, but the supernet knows 2 classes"):
        decide(tmp_path, ["ant", "bee", "cat"], ("ant", "bee"))


def test_fewer_folders_than_classes_are_warned_of(tmp_path):
    indices, warnings = classes_of_folders(tmp_path, ["n01", "n02"], NUMBERED)
    assert indices == {"n01": 0, "n02": 1}
    (text,) = warnings
    assert "has 2 class folders, but the supernet knows 1000 classes" in text
    assert "classes 0 to 1 in sorted order" in text
    assert "accuracies mean nothing unless that is so" in text
    assert f"'{tmp_path}/classes.txt'" in text
