"""Class indices of folder names and labels."""

import ast
import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from hwsearch.errors import InputError

CLASSES = "classes.txt"
IMAGENET_CLASSES = 1000
_WHOLE = re.compile(r"[+-]?[0-9]+")
_SYNSET = re.compile(r"n[0-9]{8}")
_NAMES = "_IMAGENET_CATEGORIES"  # in torchvision's source


class ClassIndex:
    """Index of every class by its names, in any case, with blanks, underscores or hyphens.

    Exact names take precedence over variants; a name of two classes has no index. ``names`` are
    those of each class in the order of the outputs; the first one is shown.
    """

    def __init__(self, names: Sequence[Sequence[str]]) -> None:
        self.shown = [each[0] for each in names]
        pairs = [(name, index) for index, each in enumerate(names) for name in each]
        self._spelt = {folded(name): name for name, _ in pairs}
        self._exact = _unambiguous(pairs)
        self._folded = _unambiguous((folded(name), index) for name, index in pairs)

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None

    def find(self, name: str) -> int | None:
        """Return the index of the class of this name, or None."""
        return self._exact.get(name, self._folded.get(folded(name)))

    def nearest(self, name: str) -> str | None:
        """Return the known name nearest to another one, or None where none is similar."""
        close = difflib.get_close_matches(folded(name), self._folded, n=1, cutoff=0.75)
        return self._spelt[close[0]] if close else None

    def listed(self) -> str:
        """Return the number of classes and the first few names."""
        return f"{len(self.shown)} ({first_few(self.shown, 10)})"


def first_few(names: Sequence[str], most: int = 5) -> str:
    """Return the first names in a row, with dots where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def folded(name: str) -> str:
    """Return a name without case, accents' encoding, separators and leading zeros."""
    text = unicodedata.normalize("NFKC", name).strip()
    if _WHOLE.fullmatch(text):
        return str(int(text))
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def known_classes(classes: Sequence[str]) -> ClassIndex:
    """Return the classes of a supernet by name.

    1000 classes without names are also known by torchvision's names of ImageNet's classes, and by
    ImageNet's synsets where timm is installed.
    """
    if not (are_numbers(classes) and len(classes) == IMAGENET_CLASSES):
        return ClassIndex([[name] for name in classes])
    lists = [classes, imagenet_names(), imagenet_synsets()]
    return ClassIndex(list(zip(*filter(None, lists), strict=True)))


@cache
def imagenet_names() -> tuple[str, ...]:
    """Return torchvision's names of ImageNet's 1000 classes.

    They are read from its source where it is as known: importing it loads PyTorch, which takes
    seconds, and which elastic models are searched without.
    """
    package = find_spec("torchvision")
    for folder in (package and package.submodule_search_locations) or ():
        with suppress(OSError, SyntaxError, ValueError):
            source = (Path(folder) / "models" / "_meta.py").read_text("utf-8")
            for node in ast.parse(source).body:
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == _NAMES:
                    found = ast.literal_eval(node.value)
                    if len(found) == IMAGENET_CLASSES and all(isinstance(n, str) for n in found):
                        return tuple(found)
    from torchvision.models import get_weight

    return tuple(get_weight("ResNet18_Weights.IMAGENET1K_V1").meta["categories"])


def imagenet_synsets() -> list[str]:
    """Return ImageNet's 1000 synsets in order; empty without timm."""
    package = find_spec("timm")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder) / "data" / "_info" / "imagenet_synsets.txt"
        if file.is_file() and len(found := file.read_text("ascii").split()) == IMAGENET_CLASSES:
            return found
    return []


def indices_by_name(
    where: str, names: Sequence[str], classes: Sequence[str], remedy: str
) -> dict[str, int] | None:
    """Return the index of each class name of a data set; None where none is known.

    Names of which only some are known, or nearly, and surplus names raise InputError, whose
    message begins with ``where`` and ends with ``remedy``.
    """
    known = known_classes(classes)
    found = {name: index for name in names if (index := known.find(name)) is not None}
    missing = [name for name in names if name not in found]
    if not missing:
        return found
    if all(map(_WHOLE.fullmatch, names)) and (are_numbers(classes) or not found):
        return {name: class_of_label(where, name, known) for name in names}
    alike = {name: near for name in missing[:20] if (near := known.nearest(name))}
    if found or alike:
        strange = [f"{name!r} (did you mean {near!r}?)" for name, near in alike.items()]
        strange += [repr(name) for name in missing if name not in alike]
        raise InputError(
            f"{where}: {len(missing)} of {len(names)} class names are none of the supernet's: "
            f"{first_few(strange)}; its classes are {known.listed()}. {remedy}"
        )
    if classes and len(names) > len(classes):
        raise InputError(
            f"{where} has {len(names)} class folders, but the supernet knows {len(classes)} "
            f"classes. {remedy}"
        )
    return None


def classes_of_folders(
    root: Path, parts: Sequence[Sequence[str]], classes: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Return the class index of each class folder by name, and warnings.

    ``classes.txt`` in ``root`` decides where there is one; else the supernet's class names, where
    the folders have them; else the names themselves, where all are integers; else sorted order.
    ``parts`` are the names of the class folders in each split folder.
    """
    names = sorted({name for part in parts for name in part})
    where, file = f"image folder {str(root)!r}", root / CLASSES
    if file.is_file():
        return _listed_indices(file, names, classes)
    remedy = (
        "Rename the folders, remove those that are no classes, or list their names in the order "
        f"of the outputs in {str(file)!r}."
    )
    found = indices_by_name(where, names, classes, remedy)
    if found is not None:
        return found, ()
    indices = _in_order(parts)
    n, count = len(set(indices.values())), len(classes)
    if classes and n != count:
        doubt = f"has {n} class folders, but the supernet knows {count} classes"
        synsets = count == IMAGENET_CLASSES and all(map(_SYNSET.fullmatch, names))
        if synsets and not imagenet_synsets():
            doubt += "; ImageNet's synsets are known once timm is installed"
    elif classes and not are_numbers(classes):
        doubt = (
            f"has none of the supernet's classes {first_few(classes)} among its class folders "
            f"({first_few(names, 3)})"
        )
    elif _misordered(names):
        doubt = "has numbers in its class folders' names whose order is not that of text"
    else:
        return indices, ()
    warning = (
        f"{where} {doubt}: they are taken as classes 0 to {n - 1} in sorted order, and accuracies "
        "mean nothing unless that is so; to say otherwise, list the folders' names in the order "
        f"of the outputs in {str(file)!r}"
    )
    return indices, (warning,)


def _in_order(parts: Sequence[Sequence[str]]) -> dict[str, int]:
    """Number sorted names; ``Cat`` in one part is ``cat`` in another, unless a part has both."""
    variants = all(len({folded(name) for name in part}) == len(part) for part in parts)
    spelt: dict[str, list[str]] = {}
    for name in (name for part in parts for name in part):
        spelt.setdefault(folded(name) if variants else name, []).append(name)
    order = sorted(spelt.values())
    return {name: index for index, same in enumerate(order) for name in same}


def _listed_indices(
    file: Path, names: Sequence[str], classes: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    listed, known = listed_classes(file, classes), known_classes(classes)
    indices: dict[str, int] = {}
    for name in names:
        index = listed.find(name)
        if index is None:
            near = listed.nearest(name)
            raise InputError(
                f"class folder {name!r} is not in {str(file)!r}, which lists {listed.listed()}"
                f"{f'; did you mean {near!r}?' if near else ''}; add it or remove the folder"
            )
        indices[name] = index
    moved = [n for n, index in indices.items() if known.find(n) not in (None, index)]
    return indices, tuple(
        f"{str(file)!r} takes {name!r} as class {indices[name]}, but the supernet's class of that "
        f"name is {known.find(name)}: accuracies mean nothing unless the file is right"
        for name in moved[:1]
    )


def listed_classes(file: Path, classes: Sequence[str]) -> ClassIndex:
    """Read ``classes.txt``: a class in each line, in the order of the outputs.

    A class is named by its line, or by the text before the first comma or blank, as in ImageNet's
    list of synsets. Damaged, empty, repeated or surplus lines raise InputError.
    """
    names = [line.strip() for line in read_text(file).rstrip().splitlines()]
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            what = f"names {name!r} again" if name else "is empty"
            raise InputError(f"{str(file)!r}: line {number} {what}; give one class per line")
    if classes and len(names) > len(classes):
        raise InputError(
            f"{str(file)!r} lists {len(names)} classes, but the supernet knows {len(classes)}"
        )
    return ClassIndex([[name.split(",")[0], re.split(r"[\s,]", name)[0], name] for name in names])


def read_text(file: Path) -> str:
    """Return the text of a file; raise InputError if it is not in UTF-8."""
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{str(file)!r} is no text in UTF-8: {error}") from error


def class_of_label(where: str, label: str, known: ClassIndex, n_classes: int = 0) -> int:
    """Return the index of a class name, or of an integer below ``n_classes`` (0: the known ones).

    Raises:
        InputError: It is neither, or out of range; the message begins with ``where``.
    """
    index = known.find(label)
    if index is not None:
        return index
    if not _WHOLE.fullmatch(label):
        near = known.nearest(label)
        raise InputError(
            f"{where}: label {label!r} is no whole number and no class name"
            f"{f' (did you mean {near!r}?)' if near else ''}; give the index of "
            f"the output, or list the names in the order of the outputs in {CLASSES}"
        )
    index, n_classes = int(label), n_classes or len(known.shown)
    if index < 0 or (n_classes and index >= n_classes):
        allowed = f"classes are 0 to {n_classes - 1}" if n_classes else "classes count from 0"
        raise InputError(f"{where}: class {label}, but the supernet's {allowed}")
    return index


def are_numbers(classes: Sequence[str]) -> bool:
    """Return whether class names are only their indices."""
    return all(name == str(index) for index, name in enumerate(classes))


def _misordered(names: Sequence[str]) -> bool:
    """Return whether sorted names differ in numbers of another order, as ``c10`` before ``c2``."""
    groups: dict[str, list[list[int]]] = {}
    for name in names:
        numbers = [int(digits) for digits in re.findall(r"\d+", name)]
        groups.setdefault(re.sub(r"\d+", "0", name), []).append(numbers)
    return any(group != sorted(group) for group in groups.values())


def _unambiguous(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, set[int]] = {}
    for name, index in pairs:
        found.setdefault(name, set()).add(index)
    return {name: next(iter(s)) for name, s in found.items() if name and len(s) == 1}
