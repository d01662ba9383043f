"""Label files: the names of images and the class of each."""

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hwsearch.accuracy.classes import CLASSES, class_of_label, known_classes, listed_classes
from hwsearch.errors import InputError


def read_labels(file: Path, classes: Sequence[str]) -> dict[str, int]:
    """Return the class index of each image listed in a label file.

    Raises:
        InputError: A line is malformed, or names no file, no class, or a file twice.
    """
    root = file.parent
    listed = (root / CLASSES).is_file()
    known = listed_classes(root / CLASSES, classes) if listed else known_classes(classes)
    paths: dict[str, int] = {}
    for number, name, label in _rows(file):
        where = f"{str(file)!r}, line {number}"
        path = os.path.normpath(root / name)
        if path in paths:
            raise InputError(f"{where}: {name!r} is listed twice; keep one line")
        paths[path] = class_of_label(where, label, known, len(classes))
    absent = [path for path in paths if not os.path.isfile(path)]
    if absent:
        named = ", ".join(os.path.relpath(each, root) for each in absent[:5])
        raise InputError(
            f"{str(file)!r} names {len(absent)} of {len(paths)} files that do not exist: {named}"
            f"{', ...' if len(absent) > 5 else ''}; names are relative to {str(root)!r}"
        )
    return paths


def _rows(file: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, file, label)."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"label file {str(file)!r} is no text in UTF-8: {error}") from error
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        parts = next(csv.reader([line])) if file.suffix == ".csv" else _split(line.strip())
        if len(parts) != 2:
            form = "FILE,LABEL" if file.suffix == ".csv" else "FILE LABEL"
            raise InputError(f"{str(file)!r}, line {number}: {line!r} is not '{form}'")
        name, label = (part.strip() for part in parts)
        header = number == 1 and file.suffix == ".csv"
        if header and not name.lower().endswith(IMG_EXTENSIONS):
            continue
        yield number, name, label


def _split(line: str) -> list[str]:
    """Split at the last blank or comma: a file's name may have blanks in it."""
    found = re.fullmatch(r"(.+?)(?:\s*,\s*|\s+)([^\s,]+)", line)
    return list(found.groups()) if found else [line]
