"""Lines of text, with labels or without, as token arrays of one length."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hwsearch.accuracy.classes import class_of_label, known_classes, read_text
from hwsearch.accuracy.task import SPLITS, UNLABELLED, Labels, SplitSizes, stratified
from hwsearch.errors import InputError
from hwsearch.models.input_spec import token_role
from hwsearch.models.preprocessing import read_settings
from hwsearch.supernets.interface import InputSpec, TensorSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TOKENIZER = "tokenizer.json"
# The length covers this share of the lines: one long line would make all inputs as long.
COVERED = 0.99
STEP = 8  # lengths are multiples of it
LONGEST = 512  # where nothing beside the model says how many tokens it takes
_LIMITS = ("max_position_embeddings", "n_positions", "max_seq_length", "model_max_length")
_PADS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Lines of a file with (n,) class indices as labels, -1 for none."""

    texts: list[str]
    labels: NDArray[np.int64]
    warnings: tuple[str, ...] = ()


def read_lines(path: Path, classes: Sequence[str], labels: Labels = "optional") -> Lines:
    """Read one text per line, or ``LABEL<TAB>TEXT`` from a file that ends in ``.tsv``.

    A label is a class index or name. Blank lines are left out.

    Raises:
        InputError: The file is absent, not in UTF-8, or has no text; a line of a ``.tsv`` has no
            tab, no text or an unknown label; or labels are needed.
    """
    if not path.is_file():
        raise InputError(f"there is no text file {str(path)!r}")
    if path.suffix.lower() == ".tsv":
        try:
            return _labelled(path, classes)
        except InputError as error:
            if labels != "unneeded":
                raise
            texts = [line.split("\t")[-1] for line in _split(path)]
            doubt = f"labels are left out: {error}"
            return _checked(path, texts, [UNLABELLED] * len(texts), (doubt,))
    if labels == "needed":
        raise InputError(
            f"text file {str(path)!r} has no labels; write LABEL<TAB>TEXT on each line of a file "
            "that ends in .tsv"
        )
    texts = _split(path)
    return _checked(path, texts, [UNLABELLED] * len(texts))


def _split(path: Path) -> list[str]:
    """Return the lines of a file; other separators of Unicode are characters of a text."""
    return [line.removesuffix("\r") for line in read_text(path).split("\n")]


def _labelled(path: Path, classes: Sequence[str]) -> Lines:
    known, texts, labels = known_classes(classes), [], []
    for number, line in enumerate(_split(path), 1):
        where = f"{str(path)!r}, line {number}"
        label, *rest = line.split("\t")
        if not line.strip() or (number == 1 and label.strip().lower() in ("label", "class")):
            continue  # blank, or a header
        if len(rest) != 1 or not rest[0].strip():
            raise InputError(f"{where}: {line!r:.60} is not 'LABEL<TAB>TEXT'")
        texts.append(rest[0])
        labels.append(class_of_label(where, label.strip(), known, len(classes)))
    return _checked(path, texts, labels)


def _checked(
    path: Path, texts: Sequence[str], labels: Sequence[int], warnings: tuple[str, ...] = ()
) -> Lines:
    kept = [(text, label) for text, label in zip(texts, labels, strict=True) if text.strip()]
    if len(kept) < len(SPLITS):
        raise InputError(
            f"text file {str(path)!r} has {len(kept)} lines with text; at least {len(SPLITS)} are "
            "needed, and some hundred make results useful"
        )
    last = max(row for row, text in enumerate(texts) if text.strip())
    if blank := last + 1 - len(kept):
        warnings = (*warnings, f"text file {str(path)!r}: {blank} blank lines are left out")
    return Lines([t for t, _ in kept], np.array([label for _, label in kept]), warnings)


class LineTokenizer:
    """A tokenizer of the package ``tokenizers``, from the ``tokenizer.json`` of a model.

    Attributes:
        limit: Most tokens that the model takes, as far as the files beside it say.
        pad: Token id of padding.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        found = next((f / TOKENIZER for f in folders if (f / TOKENIZER).is_file()), None)
        where = " or ".join(dict.fromkeys(repr(str(folder)) for folder in folders))
        if found is None:
            raise InputError(
                f"there is no {TOKENIZER} in {where}, and text needs the model's own; copy it "
                "there from where the model comes from, or write it with transformers: "
                "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)"
            )
        self._tokenizer: Tokenizer = _loaded(found)
        self._tokenizer.no_truncation()
        padding = self._tokenizer.padding or {}
        ids = (self._tokenizer.token_to_id(token) for token in _PADS)
        self.pad = int(padding.get("pad_id", next((i for i in ids if i is not None), 0)))
        self._tokenizer.no_padding()
        self.limit = _limit(found.parent)
        self.path = found

    def encode(self, texts: Sequence[str], length: int | None = None) -> list[Any]:
        """Return the encodings of texts, none longer than ``length``."""
        if length is not None:
            self._tokenizer.enable_truncation(length)
        encoded: list[Any] = self._tokenizer.encode_batch(list(texts))
        if length is not None:
            self._tokenizer.no_truncation()
        return encoded

    def length_for(self, texts: Sequence[str]) -> int:
        """Return the length that covers nearly all texts, a multiple of 8 within the limit."""
        lengths = np.sort([len(each.ids) for each in self.encode(texts)])
        covered = int(lengths[math.ceil(COVERED * len(lengths)) - 1])
        return min(max(STEP, math.ceil(covered / STEP) * STEP), self.limit)


def _loaded(path: Path) -> "Tokenizer":
    # Its threads would end with a warning in every process that is forked after their use.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise InputError(
            "text needs the package 'tokenizers'; pip install 'hwsearch[text]'"
        ) from error
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:
        # The package raises plain Exception for a damaged file.
        raise InputError(f"{str(path)!r} is no tokenizer that can be read: {error}") from error


def _limit(folder: Path) -> int:
    stated = [read_settings(folder / name) for name in ("config.json", "tokenizer_config.json")]
    given = [each.get(name) for each in stated for name in _LIMITS]
    sizes = [n for n in given if isinstance(n, int) and 0 < n < 1 << 20]  # "none" is 1e30
    return min(sizes, default=LONGEST)


def token_arrays(
    what: str, texts: Sequence[str], tokenizer: LineTokenizer, spec: InputSpec
) -> tuple[dict[str, NDArray[Any]], int]:
    """Return the (n, length) arrays of each input, padded, and the number of lines cut short.

    Raises:
        InputError: An input holds no tokens, or the tokenizer knows tokens that the model does
            not.
    """
    roles = token_inputs(what, spec)
    (length,) = next(t.shape for t in spec.inputs if roles[t.name] == "ids")
    encoded = tokenizer.encode(texts, length)
    n_cut = sum(bool(each.overflowing) for each in encoded)
    columns = {"ids": tokenizer.pad, "mask": 0, "types": 0}
    rows = {role: np.full((len(texts), length), fill) for role, fill in columns.items()}
    rows["positions"] = np.tile(np.arange(length), (len(texts), 1))
    for row, each in enumerate(encoded):
        n = len(each.ids)
        rows["ids"][row, :n], rows["types"][row, :n] = each.ids, each.type_ids
        rows["mask"][row, :n] = 1
    for tensor in spec.inputs:
        if roles[tensor.name] == "ids" and tensor.high is not None:
            highest = int(rows["ids"].max())
            if highest >= tensor.high:
                raise InputError(
                    f"{what}: the tokenizer {str(tokenizer.path)!r} gives token {highest}, and "
                    f"the model knows {tensor.high}; take the model's own tokenizer"
                )
    return {t.name: rows[roles[t.name]].astype(t.dtype) for t in spec.inputs}, n_cut


def token_inputs(what: str, spec: InputSpec) -> dict[str, str]:
    """Return what each input holds: ids, mask, types or positions; raise InputError for others."""
    roles = {tensor.name: _role(tensor, spec) for tensor in spec.inputs}
    strange = [t for t in spec.inputs if not roles[t.name] or len(t.shape) != 1]
    if strange or "ids" not in roles.values() or len(set(roles.values())) < len(roles):
        listed = ", ".join(f"{t.name} ({t.dtype} {t.shape})" for t in spec.inputs)
        raise InputError(
            f"{what}: the inputs of the model are {listed}, and text gives input_ids, "
            "attention_mask, token_type_ids and position_ids; give arrays by npz:FILE"
        )
    return {name: role for name, role in roles.items() if role}


def _role(tensor: TensorSpec, spec: InputSpec) -> str | None:
    role = token_role(tensor.name)
    if role is None and len(spec.inputs) == 1 and tensor.dtype.startswith("int"):
        return "ids"
    return role


def read_text_samples(
    what: str,
    path: Path,
    spec: InputSpec,
    folders: Sequence[Path],
    labels: Labels,
) -> tuple[dict[str, dict[str, NDArray[Any]]], tuple[str, ...]]:
    """Return split -> arrays by input, and ``target`` where lines have labels; and warnings.

    ``tokenizer.json`` lies in one of the folders. Raises InputError as `read_lines` and
    `token_arrays` do.
    """
    roles = token_inputs(what, spec)
    lines, tokenizer = read_lines(path, spec.classes, labels), LineTokenizer(folders)
    arrays, n_cut = token_arrays(what, lines.texts, tokenizer, spec)
    warnings = list(lines.warnings)
    if n_cut:
        (length,) = next(t.shape for t in spec.inputs if roles[t.name] == "ids")
        warnings.append(
            f"{what}: {n_cut} of {len(lines.texts)} lines have more than {length} tokens and are "
            "cut there"
        )
    if "mask" not in roles.values():
        warnings.append(
            f"{what}: the model has no mask among its inputs, so that it takes padding for text"
        )
    n = SplitSizes().in_thirds(len(lines.texts))
    drawn = stratified(lines.labels, [n.search, n.report, n.calibration])
    splits = dict(zip(("search", "report", "calibration"), drawn, strict=True))
    labelled = (lines.labels != UNLABELLED).any()
    return {
        split: {name: array[splits[split]] for name, array in arrays.items()}
        | ({"target": lines.labels[splits[split]]} if labelled else {})
        for split in SPLITS
    }, tuple(warnings)
