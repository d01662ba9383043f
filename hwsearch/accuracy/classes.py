"""Which class an image folder's names stand for."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hwsearch.errors import InputError

CLASSES = "classes.txt"
_WHOLE = re.compile(r"[+-]?[0-9]+")


def classes_of_folders(
    root: Path, names: Sequence[str], classes: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Decide the class index of each class folder.

    ``classes.txt`` decides where there is one; else the supernet's class names, where the folders
    have them; else the names themselves, where all are whole numbers; else their sorted order.

    Args:
        root: Holds ``classes.txt``, if there is one.
        names: Of the class folders, sorted.
        classes: Of the supernet, in order; empty if unknown.

    Returns:
        Name -> index; and warnings.

    Raises:
        InputError: A name stands for no class of the supernet.
    """
    if (root / CLASSES).is_file():
        listed = listed_classes(root, classes)
        return {name: _listed_index(root, name, listed) for name in names}, ()
    known = {name: index for index, name in enumerate(classes)}
    if known.keys() >= set(names):
        return {name: known[name] for name in names}, ()
    if all(_WHOLE.fullmatch(name) for name in names):
        where = f"image folder {str(root)!r}"
        return {name: class_of_label(where, name, {}, len(classes)) for name in names}, ()
    if classes and len(names) > len(classes):
        raise InputError(
            f"image folder {str(root)!r} has {len(names)} class folders, but the supernet knows "
            f"{len(classes)} classes"
        )
    in_order = {name: index for index, name in enumerate(names)}
    return in_order, _warnings(root, names, classes)


def _warnings(root: Path, names: Sequence[str], classes: Sequence[str]) -> tuple[str, ...]:
    if not classes or len(names) == len(classes):
        return ()
    return (
        f"image folder {str(root)!r} has {len(names)} class folders, but the supernet knows "
        f"{len(classes)} classes: they are taken as classes 0 to {len(names) - 1} in sorted "
        "order, and accuracies mean nothing unless that is so; to say otherwise, list the "
        f"folders' names in the order of the outputs in {str(root / CLASSES)!r}",
    )


def listed_classes(root: Path, classes: Sequence[str]) -> dict[str, int]:
    """Read ``classes.txt``: one name per line, in the order of the outputs; name -> index.

    Text after the first blank or comma is ignored, as ImageNet's list of synsets has it.

    Raises:
        InputError: It is no text, has an empty line among others, a name twice, or more names
            than the supernet has classes.
    """
    path = root / CLASSES
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{str(path)!r} is no text in UTF-8: {error}") from error
    names = [re.split(r"[\s,]", line.strip(), maxsplit=1)[0] for line in lines]
    for number, name in enumerate(names, 1):
        if not name or name in names[: number - 1]:
            what = f"names {name!r} again" if name else "is empty"
            raise InputError(f"{str(path)!r}: line {number} {what}; give one class per line")
    if classes and len(names) > len(classes):
        raise InputError(
            f"{str(path)!r} lists {len(names)} classes, but the supernet knows {len(classes)}"
        )
    return {name: index for index, name in enumerate(names)}


def class_of_label(where: str, label: str, known: Mapping[str, int], n_classes: int) -> int:
    """Return the class index of a label: a whole number, or a class name.

    Args:
        where: What messages begin with.
        label: As written.
        known: Class name -> index.
        n_classes: How many classes the supernet scores; 0 if unknown.

    Raises:
        InputError: It is neither, or out of range.
    """
    if not _WHOLE.fullmatch(label):
        if label in known:
            return known[label]
        raise InputError(
            f"{where}: label {label!r} is no whole number and no class name; give the index of "
            f"the output, or list the names in the order of the outputs in {CLASSES}"
        )
    index = int(label)
    if index < 0 or (n_classes and index >= n_classes):
        allowed = f"classes are 0 to {n_classes - 1}" if n_classes else "classes count from 0"
        raise InputError(f"{where}: class {label}, but the supernet's {allowed}")
    return index


def _listed_index(root: Path, name: str, listed: Mapping[str, int]) -> int:
    if name not in listed:
        raise InputError(
            f"class folder {name!r} is not in {str(root / CLASSES)!r}, which lists "
            f"{len(listed)} ({', '.join(list(listed)[:3])}{', ...' if len(listed) > 3 else ''}); "
            "add it or remove the folder"
        )
    return listed[name]
