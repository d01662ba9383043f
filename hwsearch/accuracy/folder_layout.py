"""Layout of an image folder: its splits and its classes."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hwsearch.accuracy.classes import CLASSES, ClassIndex, first_few, folded
from hwsearch.errors import InputError

# Those of torchvision, which loads slowly.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
LABEL_FILES = ("labels.txt", "labels.csv")
LAYOUTS = (
    "PATH/CLASS/IMAGE, or PATH/train/CLASS/IMAGE with PATH/val/CLASS/IMAGE (or test), or "
    "PATH/labels.txt with lines 'FILE LABEL'"
)
ROLES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing", "tst"),
}
_FILLERS = ("set", "split", "data", "dataset", "image", "images", "img", "imgs")
# Names of folders that hold images of all classes, or annotations.
_CONTAINERS = ("image", "images", "img", "imgs", "jpegimages", "labels", "annotations", "masks")
# Leftovers of systems and tools, besides hidden files.
_JUNK = (
    "__macosx", "__pycache__", "lost+found", "@eadir", "$recycle.bin", "system volume information",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class Tree:
    """A folder with the images and folders in it, each sorted by name."""

    path: str
    images: list[str] = field(default_factory=list)
    folders: "dict[str, Tree]" = field(default_factory=dict)

    def walk(self) -> Iterator[str]:
        """Yield all images below it."""
        yield from self.images
        for each in self.folders.values():
            yield from each.walk()

    def holding(self) -> "dict[str, Tree]":
        """Return its folders with images below them."""
        return {n: each for n, each in self.folders.items() if next(each.walk(), None)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Class folders of one split, or of all where there are no splits: folder -> images."""

    path: Path
    classes: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Location of the images of a data set.

    ``root`` is the folder of an optional ``classes.txt``; ``labels``, the label file, is None
    where there are class folders, whose ``pools`` are called ``"train"`` and ``"val"``, or ``""``
    for all images. ``warnings`` name omissions and assumptions.
    """

    root: Path
    labels: Path | None = None
    pools: Mapping[str, Pool] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def scan(folder: str) -> Tree:
    """List a folder without hidden files and leftovers of systems and tools."""
    tree = Tree(folder)
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = entry.name.lower()
            if name.startswith(".") or name in _JUNK:
                continue
            if name.endswith(SUFFIXES):
                tree.images.append(entry.path)
            elif entry.is_dir() and not _leads_back(entry):
                tree.folders[entry.name] = scan(entry.path)
    return tree


def _leads_back(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a link to a folder that contains it."""
    if not entry.is_symlink():
        return False
    there, here = (os.path.realpath(each) for each in (entry.path, os.path.dirname(entry.path)))
    return os.path.commonpath([there, here]) == there


def find_layout(path: Path, known: ClassIndex) -> Layout:
    """Find splits and classes in a folder, or in the only folder in it that holds images.

    Raises:
        InputError: It has several label files, two folders for one split, splits below classes, or
            images without classes.
    """
    if labels := label_file(path):
        return Layout(root=path, labels=labels)
    node = _unwrapped(scan(str(path)), known)
    if labels := label_file(Path(node.path)):
        return Layout(root=labels.parent, labels=labels)
    root = next((r for r in (path, Path(node.path)) if (r / CLASSES).is_file()), path)
    listed = (root / CLASSES).is_file()
    inside = node.holding()
    # All folders are known classes, or classes.txt lies beside plain ones.
    plain = listed and all(each.images for each in inside.values())
    are_classes = len(inside) > 1 and (plain or all(name in known for name in inside))
    splits = {} if are_classes else _splits(node)
    if not splits:
        return Layout(root=root, pools={"": _pool(node, known, listed=listed)})
    warnings = []
    left_out = [name for name in inside if name not in splits.values()]
    if left_out:
        warnings.append(
            f"image folder {node.path!r} holds splits ({', '.join(splits.values())}): "
            f"{', '.join(left_out)} beside them {'is' if len(left_out) == 1 else 'are'} left out"
        )
    pools = {
        role: _pool(_unwrapped(node.folders[name], known, in_split=True), known, listed=listed)
        for role, name in splits.items()
    }
    chosen, doubt = _chosen(pools)
    return Layout(root=root, pools=chosen, warnings=(*warnings, *doubt))


def label_file(folder: Path) -> Path | None:
    """Return the label file in a folder, or None; raise InputError where there are several."""
    found = [folder / name for name in LABEL_FILES if (folder / name).is_file()]
    if len(found) > 1:
        raise InputError(f"image folder {str(folder)!r} has {' and '.join(LABEL_FILES)}; keep one")
    return found[0] if found else None


def _unwrapped(node: Tree, known: ClassIndex, *, in_split: bool = False) -> Tree:
    """Descend while one folder holds all images and is no class and (unless in_split) no split."""
    while len(inside := node.holding()) == 1:
        ((name, child),) = inside.items()
        below = child.holding() and not child.images
        split = None if in_split else role_of(name)
        if not (below or label_file(Path(child.path))) or name in known:
            break
        if split is not None and not split[1]:
            break
        node = child
    return node


def role_of(name: str) -> tuple[str, str] | None:
    """Return the split that a folder's name stands for and the rest of the name, or None.

    ``train``, ``Train``, ``train_set``, ``train2017`` have no rest; that of ``seg_train`` is
    ``seg``.
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()
    words = [word.removesuffix("set") or word for word in re.findall(r"[^\W\d_]+", spaced)]
    roles = [role for word in words for role, spelt in ROLES.items() if word in spelt]
    if len(roles) != 1:
        return None
    rest = (w for w in words if w not in ROLES[roles[0]] and w not in _FILLERS)
    return roles[0], " ".join(rest)


def _splits(node: Tree) -> dict[str, str]:
    """Return split -> name of its folder; empty where the folders are classes."""
    inside = node.holding()
    by_rest: dict[str, dict[str, list[str]]] = {}
    for name in inside:
        if found_role := role_of(name):
            role, rest = found_role
            by_rest.setdefault(rest, {}).setdefault(role, []).append(name)
    found = by_rest.get("") or next((each for each in by_rest.values() if len(each) > 1), {})
    others = [name for name in inside if not any(name in names for names in found.values())]
    if len(found) == 1 and others:
        ((split, *_),) = found.values()
        if len(others) > 1 and inside[split].images and not inside[split].holding():
            return {}  # a class of this name among others
        raise InputError(
            f"image folder {node.path!r} holds {split!r}, which is the name of a split, and "
            f"{first_few(others)}; expected {LAYOUTS}. Rename the folders, or list classes of "
            f"these names in {os.path.join(node.path, CLASSES)!r}."
        )
    for role, names in found.items():
        if len(names) > 1:
            raise InputError(
                f"image folder {node.path!r} holds {' and '.join(names)}, which are all names of "
                f"a {role} split; keep one"
            )
    return {role: names[0] for role, names in found.items()}


def _pool(node: Tree, known: ClassIndex, *, listed: bool) -> Pool:
    """Return the folders in a folder as classes; raise InputError where they are not."""
    inside = node.holding()
    for name, child in inside.items():
        below = [each for each in child.holding() if role_of(each)]
        if len(below) > 1:
            raise InputError(
                f"image folder {node.path!r}: {name!r} would be a class, but holds splits "
                f"({', '.join(below)}); expected {LAYOUTS}. Give the path of one data set, with "
                "splits above classes."
            )
        if folded(name) in _CONTAINERS and name not in known and not listed:
            raise InputError(
                f"image folder {node.path!r}: {name!r} is no class; expected {LAYOUTS}"
            )
    same = set.intersection(*(set(c.holding()) for c in inside.values())) if inside else set()
    unknown = not listed and not any(name in known for name in inside)
    if len(inside) > 1 and same and unknown and not any(c.images for c in inside.values()):
        raise InputError(
            f"image folder {node.path!r}: each of {first_few(list(inside))} holds a folder "
            f"{min(same)!r}, so they are no classes, or list them as such in {CLASSES!r}; "
            f"expected {LAYOUTS}"
        )
    classes = {name: sorted(child.walk()) for name, child in node.folders.items()}
    if any(name in known for name in classes):
        # Empty folders of other names hold no place in an order.
        classes = {n: images for n, images in classes.items() if images or n in known}
    return Pool(path=Path(node.path), classes=classes)


def _chosen(pools: Mapping[str, Pool]) -> tuple[dict[str, Pool], tuple[str, ...]]:
    """Return the pools to draw from: train and val, or one for all; and warnings."""
    train, val, test = (pools.get(role) for role in ROLES)
    if test and not (_names(test) & _names(train) if train else _names(test)):
        test = None  # images without their classes
    held_out = val or test
    if train and held_out:
        if _names(train) and _names(held_out) and not _names(train) & _names(held_out):
            raise InputError(
                f"image folders {str(train.path)!r} and {str(held_out.path)!r} have no class "
                f"folder in common; expected {LAYOUTS}"
            )
        return {"train": train, "val": held_out}, ()
    only = train or held_out or next(iter(pools.values()))
    doubt = (
        f"image folder {str(only.path.parent)!r} has class folders in {only.path.name!r} only: "
        "search and report images are drawn from it too, and accuracies on images that the "
        "network was trained on are too high",
    )
    return {"": only}, doubt if only is train else ()


def _names(pool: Pool) -> set[str]:
    return {folded(name) for name, images in pool.classes.items() if images}
