"""Once-for-all families: configurations of the original code, checkpoint keys, inputs.

The families are those of Cai et al., "Once-for-All: Train One Network and Specialize it for
Efficient Deployment" (ICLR 2020).
"""

import ast
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeAlias

from hwsearch.errors import InputError, unknown
from hwsearch.space import Architecture, Architectures, Choice, Option, SearchSpace
from hwsearch.supernets.builder import Chain, Design
from hwsearch.supernets.interface import ImagePreprocessing, InputSpec, TensorSpec

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
RESOLUTION = Choice("resolution", tuple(range(128, 225, 4)))
DEFAULT_RESOLUTION = 224
N_CLASSES = 1000
KeyRenamer: TypeAlias = Callable[[str], str | None]


def image_design(
    space: "OfaSpace",
    chain: Callable[[Architecture], Chain],
    classes: int,
    kernels: tuple[int, ...] = (),
) -> Design:
    """Return the design for ImageNet-normalised RGB images; rules may free its resolution."""
    names = tuple(str(number) for number in range(classes))

    def input_spec(arch: Architecture) -> InputSpec:
        side = int(arch["resolution"])
        return InputSpec(
            inputs=(TensorSpec(name="image", shape=(3, side, side)),),
            preprocessing=ImagePreprocessing(
                resize=math.ceil(side / 0.875), crop=side, mean=MEAN, std=STD
            ),
            classes=names,
        )

    resolution = next(choice for choice in space.choices if choice.name == RESOLUTION.name)
    return Design(
        space=space,
        chain=chain,
        input_spec=input_spec,
        defaults={RESOLUTION.name: resolution.options[-1]},
        kernels=kernels,
        statistics=True,
    )


def key_renamer(patterns: Mapping[str, str], blocks: Sequence[str]) -> KeyRenamer:
    """Return the function from a published key, of any version of the original code, to ours.

    ``patterns`` maps prefixes of canonical keys (``blocks.N`` may be left out) to ours, ``blocks``
    are our names of the published ``blocks.0``, ``blocks.1`` and so on. Modules were renamed and
    wrapped over time: ``mobile_inverted_conv`` became ``conv``, and ``bn``, ``conv`` and
    ``linear`` may occur twice. Counters of batch norms have no counterpart.
    """

    def rename(key: str) -> str | None:
        if key.endswith("num_batches_tracked"):
            return None
        parts = key.replace("mobile_inverted_conv", "conv").split(".")
        published = ".".join(part for part, _ in groupby(parts))
        numbered = re.match(r"blocks\.(\d+)\.(?:conv\.)?(.*)", published)
        if numbered and int(numbered[1]) < len(blocks):
            return f"{blocks[int(numbered[1])]}.{_replaced(numbered[2], patterns)}"
        return _replaced(published, patterns)

    return rename


def _replaced(key: str, patterns: Mapping[str, str]) -> str:
    for published, ours in patterns.items():
        if key == published or key.startswith(f"{published}."):
            return ours + key[len(published) :]
    return key


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """One entry of a configuration of the original code: the choices at its positions.

    ``fixed`` are values of positions at its end that are no choice; ``aliases`` map a choice and
    a value to the option that is the same network.
    """

    choices: tuple[Choice, ...]
    fixed: tuple[Option, ...] = ()
    aliases: Mapping[str, Mapping[Option, Option]] = field(default_factory=dict)


class OfaSpace(SearchSpace):
    """A search space that reads and writes configurations of the original code.

    ``words`` maps an entry of a configuration (``ks``, ``e``, ``d``, ``w``) to its positions,
    with the choices of the full space; ``width_mult`` is the value that ``wid`` may have besides
    None.
    """

    def __init__(
        self, choices: Iterable[Choice], words: Mapping[str, Word], width_mult: float = 1.0
    ) -> None:
        super().__init__(choices)
        self.words, self.width_mult = dict(words), width_mult

    def derived(self, choices: Iterable[Choice]) -> "OfaSpace":
        """Return a space of other choices with the same configuration entries."""
        return OfaSpace(choices, self.words, self.width_mult)

    def from_ofa(self, configs: Iterable[Mapping[str, Any] | str]) -> Architectures:
        """Build architectures from configurations of the original code.

        A configuration is a mapping such as ``{"ks": [...], "e": [...], "d": [...]}``, or the text
        of one, as in DyNAS-T's CSV files. Every entry is one value for all positions, a list
        with one value per position, a list with one value per *active* position, or a text of
        digits, one per position. ``r`` is the input resolution (224 by default), ``wid`` is None
        or the width multiplier of this supernet. Values at inactive positions are ignored.

        Raises:
            InputError: An entry is unknown or absent, has another length, or holds a value that is
                no option; the text says which configuration.
        """
        return self.architectures(
            [self._mapping(number, config) for number, config in enumerate(configs)]
        )

    def to_ofa(self, archs: Architectures) -> list[dict[str, Any]]:
        """Return architectures as configurations of the original code, at full length.

        Inactive positions hold the first option. ``r`` is included where it is not 224.
        Architectures of another space raise InputError.
        """
        self.check_own(archs)
        return [self._config(arch) for arch in archs]

    def to_dynast(self, archs: Architectures) -> list[str]:
        """Return them as in the column ``Sub-network`` of DyNAS-T CSV files; see `to_ofa`."""
        return [
            str({"wid": None, **config, "r": [config.get("r", DEFAULT_RESOLUTION)]})
            for config in self.to_ofa(archs)
        ]

    def _mapping(self, number: int, config: Mapping[str, Any] | str) -> dict[str, Option]:
        what = f"configuration {number}"
        given = dict(_parsed(what, config))
        if given.get("r") is None:
            given["r"] = DEFAULT_RESOLUTION
        width = given.pop("wid", None)
        if width not in (None, self.width_mult):
            raise InputError(
                f"{what}: 'wid' is {width!r}, but this supernet has width multiplier "
                f"{self.width_mult}; leave it out or give None"
            )
        words = {**self.words, "r": Word(choices=(RESOLUTION,))}
        for word in given:
            if word not in words:
                raise unknown(f"entry of {what}", word, [*words, "wid"])
        mapping: dict[str, Option] = {}
        # Depths and widths first: they decide which positions of the others are active.
        for name in sorted(words, key=lambda word: word in ("ks", "e")):
            if given.get(name) is None:
                raise InputError(f"{what} has no {name!r}; it needs {', '.join(self.words)}")
            mapping.update(self._values(f"{what}, {name!r}", given[name], words[name], mapping))
        return {name: option for name, option in mapping.items() if name in self._known_names}

    def _values(
        self, what: str, given: object, word: Word, depths: Mapping[str, Option]
    ) -> dict[str, Option]:
        values = _listed(what, given)
        choices = word.choices
        full = len(choices)
        active = [choice for choice in choices if _is_active(choice, depths)]
        if len(values) == 1:
            values = values * full
        elif len(values) == full + len(word.fixed) and word.fixed:
            if tuple(values[full:]) != word.fixed:
                raise InputError(f"{what} ends in {values[full:]}, not {list(word.fixed)}")
            values = values[:full]
        elif len(values) == len(active):
            choices = tuple(active)
        if len(values) != len(choices):
            lengths = sorted({1, len(active), full, full + len(word.fixed)})
            raise InputError(
                f"{what} has {len(values)} values; give {' or '.join(map(str, lengths))}"
            )
        options: dict[str, Option] = {}
        for choice, value in zip(choices, values, strict=True):
            if not _is_active(choice, depths):
                continue
            options[choice.name] = word.aliases.get(choice.name, {}).get(value, value)
            try:
                choice.index(options[choice.name])
            except InputError as error:
                raise InputError(f"{what}: {error}") from error
        return options

    def _config(self, arch: Architecture) -> dict[str, Any]:
        config: dict[str, Any] = {
            name: [arch.mapping.get(choice.name, choice.options[0]) for choice in word.choices]
            + list(word.fixed)
            for name, word in self.words.items()
        }
        if arch["resolution"] != DEFAULT_RESOLUTION:
            config["r"] = arch["resolution"]
        return config


def _parsed(what: str, config: Mapping[str, Any] | str) -> Mapping[str, Any]:
    if isinstance(config, str):
        try:
            config = ast.literal_eval(config)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise InputError(f"{what} is no dictionary: {config!r:.80}") from error
    if not isinstance(config, Mapping):
        raise InputError(f"{what} is {type(config).__name__}, not a dictionary such as {{'d': 2}}")
    return config


def _listed(what: str, given: object) -> list[Option]:
    if isinstance(given, str):
        if not given.isdecimal():
            raise InputError(f"{what} is {given!r}; give numbers, or digits such as '2334'")
        return [int(digit) for digit in given]
    values = list(given) if isinstance(given, Iterable) else [given]
    plain: list[Any] = [value.item() if hasattr(value, "item") else value for value in values]
    odd = [v for v in plain if isinstance(v, bool) or not isinstance(v, int | float)]
    if odd or not plain:
        raise InputError(f"{what} holds {odd[0] if odd else 'nothing'!r}; give numbers")
    return plain


def _is_active(choice: Choice, mapping: Mapping[str, Option]) -> bool:
    if choice.active is None:
        return True
    parent, options = choice.active
    return mapping.get(parent) in options
