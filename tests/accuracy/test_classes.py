"""The output of the supernet that a folder's name stands for."""

import pytest

from hwsearch.accuracy.classes import classes_of_folders
from hwsearch.errors import InputError

NUMBERED = tuple(str(number) for number in range(1000))
CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def decide(root, names, classes=()):
    indices, warnings = classes_of_folders(root, [names], classes)
    assert warnings == ()
    return indices


def test_sorted_names_are_the_classes_where_the_supernet_names_none(tmp_path):
    assert decide(tmp_path, ["ant", "bee"]) == {"ant": 0, "bee": 1}
    assert decide(tmp_path, ["ant", "bee"], ("0", "1")) == {"ant": 0, "bee": 1}


class TestKnownNames:
    def test_decide_whatever_the_order(self, tmp_path):
        classes = ("cat", "ant", "bee")
        assert decide(tmp_path, ["ant", "bee", "cat"], classes) == {"ant": 1, "bee": 2, "cat": 0}
        assert decide(tmp_path, ["ant", "cat"], classes) == {"ant": 1, "cat": 0}

    def test_every_part_of_them_keeps_its_indices(self, tmp_path):
        for n in range(1, 10):
            for names in (CIFAR10[:n], CIFAR10[n:]):
                expected = {name: CIFAR10.index(name) for name in names}
                assert decide(tmp_path, list(names), CIFAR10) == expected

    def test_in_any_case_and_with_any_separators(self, tmp_path):
        classes = ("hot_dog", "polar bear", "cafe\u0301", "Ship", "c++")
        names = ["Hot Dog", "POLAR-BEAR", "caf\u00e9", "ship ", "c++"]
        indices = decide(tmp_path, names, classes)
        assert [indices[name] for name in names] == [0, 1, 2, 3, 4]

    def test_exact_ones_go_before_variants(self, tmp_path):
        assert decide(tmp_path, ["A", "a"], ("a", "A")) == {"A": 1, "a": 0}
        assert decide(tmp_path, ["c", "c++", "c#"], ("c", "c#", "c++"))["c++"] == 2

    @pytest.mark.parametrize("renamed", ["aeroplane", "Air Planes", "plane", "zeppelin", "10"])
    def test_one_renamed_folder_is_refused(self, renamed, tmp_path):
        names = [renamed, *CIFAR10[1:]]
        with pytest.raises(InputError, match=rf"1 of 10 class names .*'{renamed}'") as caught:
            decide(tmp_path, names, CIFAR10)
        assert "10 (airplane, automobile, bird" in str(caught.value)
        assert f"'{tmp_path}/classes.txt'" in str(caught.value)
        if "plane" in renamed.lower() and renamed != "plane":
            assert "did you mean 'airplane'?" in str(caught.value)

    def test_one_folder_more_is_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"1 of 11 class names are none .*'background'"):
            decide(tmp_path, [*CIFAR10, "background"], CIFAR10)
        with pytest.raises(InputError, match=r"1 of 3 class names .*'zebu'; its classes are 10"):
            decide(tmp_path, ["cat", "dog", "zebu"], CIFAR10)

    def test_many_strange_names_are_not_all_written(self, tmp_path):
        names = ["cat", *(f"x{n}" for n in range(30))]
        with pytest.raises(InputError, match="30 of 31") as caught:
            decide(tmp_path, names, CIFAR10)
        assert str(caught.value).count("'x") == 5

    def test_all_nearly_known_are_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"'birds' \(did you mean 'bird'\?\)"):
            decide(tmp_path, ["birds", "cats"], CIFAR10)

    def test_none_of_them_is_warned_of(self, tmp_path):
        names = [f"Klasse {letter}" for letter in "abcdefghij"]
        indices, (text,) = classes_of_folders(tmp_path, [names], CIFAR10)
        assert list(indices.values()) == list(range(10))
        assert "has none of the supernet's classes airplane, automobile, bird" in text
        assert "accuracies mean nothing unless that is so" in text

    def test_more_folders_than_classes(self, tmp_path):
        with pytest.raises(InputError, match="3 class folders, but the supernet knows 2 classes"):
            decide(tmp_path, ["ant", "bee", "cat"], ("x", "y"))


SYNSETS = {0: "n01440764", 1: "n01443537", 217: "n02102040", 482: "n02979186", 701: "n03888257"}


@pytest.fixture
def timm(tmp_path_factory, monkeypatch):
    """A package timm with its list of synsets, most of them made up."""
    folder = tmp_path_factory.mktemp("packages")
    info = folder / "timm" / "data" / "_info"
    info.mkdir(parents=True)
    (folder / "timm" / "__init__.py").touch()
    listed = [SYNSETS.get(index, f"n9{index:07}") for index in range(1000)]
    (info / "imagenet_synsets.txt").write_text("\n".join(listed))
    monkeypatch.syspath_prepend(folder)


@pytest.fixture
def no_timm(monkeypatch):
    monkeypatch.setattr("hwsearch.accuracy.classes.find_spec", lambda name: None)


class TestImageNet:
    """The once-for-all networks number their 1000 classes."""

    @pytest.mark.usefixtures("no_timm")
    def test_synsets_without_a_list_of_them(self, tmp_path):
        indices, (text,) = classes_of_folders(tmp_path, [["n02102040", "n01440764"]], NUMBERED)
        assert indices == {"n01440764": 0, "n02102040": 1}
        assert "2 class folders, but the supernet knows 1000 classes; ImageNet's synsets" in text
        assert "timm" in text
        everything = [f"n{index:08}" for index in range(1000)]
        assert decide(tmp_path, everything, NUMBERED) == {n: i for i, n in enumerate(everything)}

    @pytest.mark.usefixtures("timm")
    def test_synsets_keep_their_indices(self, tmp_path):
        imagenette = {"n01440764": 0, "n02102040": 217, "n02979186": 482, "n03888257": 701}
        assert decide(tmp_path, list(imagenette), NUMBERED) == imagenette

    def test_words_of_torchvision(self, tmp_path):
        named = {"golden retriever": 207, "Goldfish": 1, "CASH_machine": 480}
        assert decide(tmp_path, list(named), NUMBERED) == named

    @pytest.mark.usefixtures("timm")
    def test_a_synset_that_is_none(self, tmp_path):
        with pytest.raises(InputError, match=r"'n01440765' \(did you mean 'n01440764'\?\)"):
            decide(tmp_path, ["n01440765", "n01443537"], NUMBERED)

    def test_are_no_names_of_other_networks(self, tmp_path):
        classes = tuple(f"part {n}" for n in range(1000))
        _, (text,) = classes_of_folders(tmp_path, [["n01440764", "n01443537"]], classes)
        assert "has 2 class folders, but the supernet knows 1000 classes" in text


class TestNumbers:
    @pytest.mark.parametrize("classes", [NUMBERED, tuple(f"name {n}" for n in NUMBERED), ()])
    def test_are_the_indices(self, tmp_path, classes):
        assert decide(tmp_path, ["10", "9", "999"], classes) == {"10": 10, "9": 9, "999": 999}
        assert decide(tmp_path, ["007", "017"], classes) == {"007": 7, "017": 17}
        assert decide(tmp_path, ["00", "2"], classes) == {"00": 0, "2": 2}

    def test_are_names_where_the_supernet_has_them_so(self, tmp_path):
        assert decide(tmp_path, ["1", "3"], ("1", "2", "3")) == {"1": 0, "3": 2}
        with pytest.raises(InputError, match="1 of 2 class names are none"):
            decide(tmp_path, ["0", "1"], ("1", "2", "3"))

    def test_that_are_no_classes(self, tmp_path):
        with pytest.raises(
            InputError, match=r"class 1000, but the supernet's classes are 0 to 99"
        ):
            decide(tmp_path, ["1000", "3"], NUMBERED)
        with pytest.raises(InputError, match=r"class 10, but the supernet's classes are 0 to 9"):
            decide(tmp_path, [str(n) for n in range(1, 11)], CIFAR10)
        with pytest.raises(InputError, match=r"class -1, but the supernet's classes count from 0"):
            decide(tmp_path, ["-1"])

    def test_in_names_whose_order_is_not_theirs_are_warned_of(self, tmp_path):
        _, (text,) = classes_of_folders(tmp_path, [["class_10", "class_2", "class_9"]], ())
        assert "numbers in its class folders' names whose order is not that of text" in text
        assert decide(tmp_path, ["a-1", "a1", "b02", "b10"])


def test_variants_in_two_splits_are_one_class(tmp_path):
    parts = [["Bee", "ant"], ["ant ", "bee"]]
    indices, warnings = classes_of_folders(tmp_path, parts, ())
    assert indices["Bee"] == indices["bee"] != indices["ant"] == indices["ant "]
    assert warnings == ()
    assert decide(tmp_path, ["A", "a"]) == {"A": 0, "a": 1}


class TestListed:
    def test_classes_decide_before_all_else(self, tmp_path):
        (tmp_path / "classes.txt").write_text("cat 281 tabby, tabby cat\nbee,309\n\t7 \nant\n\n")
        assert decide(tmp_path, ["7", "ant"], ("a", "b", "c", "d")) == {"7": 2, "ant": 3}
        assert decide(tmp_path, ["Cat", "BEE"], ("a", "b", "c", "d")) == {"Cat": 0, "BEE": 1}

    def test_names_of_several_words(self, tmp_path):
        (tmp_path / "classes.txt").write_text("hot dog\nhot wheel\nhot rod,9\n")
        assert decide(tmp_path, ["hot dog", "hot_rod"]) == {"hot dog": 0, "hot_rod": 2}
        with pytest.raises(InputError, match="class folder 'hot' is not in"):
            decide(tmp_path, ["hot"])

    def test_in_another_order_than_the_supernets(self, tmp_path):
        (tmp_path / "classes.txt").write_text("cat\nbee\nant\n")
        indices, (text,) = classes_of_folders(tmp_path, [["ant", "bee"]], ("ant", "bee", "cat"))
        assert indices == {"ant": 2, "bee": 1}
        assert "takes 'ant' as class 2, but the supernet's class of that name is 0" in text

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (
                "ant\ncat\n",
                r"class folder 'bee' is not in '.*classes.txt', which lists 2 \(ant, cat\)",
            ),
            ("ant\nbees\n", r"lists 2 \(ant, bees\); did you mean 'bees'\?; add it or remove"),
            ("ant\nbee\nant\n", r"classes.txt': line 3 names 'ant' again"),
            ("ant\n\nbee\n", r"classes.txt': line 2 is empty"),
            ("ant\nbee\ncat\ndog\n", r"classes.txt' lists 4 classes, but the supernet knows 3"),
        ],
    )
    def test_that_do_not_fit(self, tmp_path, text, says):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(InputError, match=says):
            decide(tmp_path, ["ant", "bee"], ("x", "y", "z"))


def test_fewer_folders_than_classes_are_warned_of(tmp_path):
    indices, warnings = classes_of_folders(tmp_path, [["n01", "n02"]], NUMBERED)
    assert indices == {"n01": 0, "n02": 1}
    (text,) = warnings
    assert "has 2 class folders, but the supernet knows 1000 classes" in text
    assert "classes 0 to 1 in sorted order" in text
    assert "accuracies mean nothing unless that is so" in text
    assert f"'{tmp_path}/classes.txt'" in text
