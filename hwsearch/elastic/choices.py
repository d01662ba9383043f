"""The search space of an elastic model: which choices it has, and what they decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from hwsearch.choices import Choice, Option
from hwsearch.elastic.analysis.liveness import removables
from hwsearch.elastic.graph import Structure
from hwsearch.elastic.input_sizes import InputSize
from hwsearch.elastic.selection import Selections
from hwsearch.errors import InputError
from hwsearch.space import Architecture, Architectures, SearchSpace
from hwsearch.supernets.interface import InputSpec

TIED = "tied"
_STEP = 16  # of the first folders, which do not state theirs
Decides = Literal["units", "keep", "size"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """What a choice decides.

    Attributes:
        decides: ``units``: how many units groups keep; ``keep``: whether a branch or layer stays;
            ``size``: the input size.
        targets: Names of the groups, or of the branch or layer.
    """

    choice: Choice
    decides: Decides
    targets: tuple[str, ...] = ()


class ElasticSpace:
    """The choices of an elastic model.

    A choice over several groups ties them: it decides for those whose own choice is ``tied``,
    their default. So a rule about a group's own choice frees it.

    Attributes:
        space: Every choice with all of its options.
        defaults: Options of the choices that a search fixes unless a rule mentions them.
        meanings: What the choices decide, in their order.
        sizes: Input sizes, in the order of the options of ``resolution``; may be empty.
        step: Channels that widths are multiples of, except in narrow groups.
    """

    def __init__(
        self,
        structure: Structure,
        meanings: Sequence[Meaning],
        defaults: Mapping[str, Option],
        sizes: Sequence[InputSize] = (),
        step: int = _STEP,
    ) -> None:
        self.step = step
        self.meanings, self.defaults, self.sizes = tuple(meanings), dict(defaults), tuple(sizes)
        self.space = SearchSpace(meaning.choice for meaning in meanings)
        self._full = np.array([group.size for group in structure.groups], np.int64)
        self._groups = {group.name: row for row, group in enumerate(structure.groups)}
        self._parts = {part.name: row for row, part in enumerate(removables(structure))}
        self._ties_first = sorted(self.meanings, key=lambda meaning: -len(meaning.targets))

    def select(self, archs: Architectures) -> Selections:
        """Return what n architectures keep; their space is the whole one or a part of it."""
        units = np.tile(self._full, (len(archs), 1))
        dropped = np.zeros((len(archs), len(self._parts)), np.bool_)
        sizes = np.full(len(archs), max(len(self.sizes) - 1, 0), np.int64)
        columns = {name: column for column, name in enumerate(archs.space.names)}
        for meaning in self._ties_first:
            column = columns.get(meaning.choice.name)
            if column is None:  # a part of the space has no choice that cannot become active
                continue
            options = archs.space.choices[column].options
            index, active = archs.indices[:, column], archs.active[:, column]
            if meaning.decides == "keep":
                out = np.array([option is False for option in options])
                dropped[:, self._parts[meaning.targets[0]]] = active & out[index]
            elif meaning.decides == "size":
                whole = meaning.choice.options
                sizes = np.array([whole.index(option) for option in options])[index]
            else:
                counts = np.array([-1 if o == TIED else o for o in options], np.int64)[index]
                rows = np.flatnonzero(active & (counts >= 0))
                for target in meaning.targets:
                    units[rows, self._groups[target]] = counts[rows]
        return Selections(units=units, dropped=dropped, sizes=sizes)

    def shapes(self, arch: Architecture) -> Mapping[str, tuple[int, ...]]:
        """Return input -> its shape, of inputs that have another size than in the given model."""
        if not self.sizes:
            return {}
        chosen = self.select(arch.space.architectures([arch]))
        return self.sizes[int(chosen.sizes[0])].shapes

    def sized(self, spec: InputSpec, arch: Architecture) -> InputSpec:
        """Return an input spec at the size that an architecture takes."""
        shapes = self.shapes(arch)
        if not shapes:
            return spec
        inputs = tuple(
            replace(tensor, shape=shapes[tensor.name][1:]) if tensor.name in shapes else tensor
            for tensor in spec.inputs
        )
        preprocessing = spec.preprocessing
        if preprocessing is not None:
            side = inputs[0].shape[-1]
            resize = round(preprocessing.resize * side / preprocessing.crop)
            preprocessing = replace(preprocessing, resize=max(resize, side), crop=side)
        return replace(spec, inputs=inputs, preprocessing=preprocessing)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        choices = [
            {
                "name": meaning.choice.name,
                "options": list(meaning.choice.options),
                "active": meaning.choice.active,
                "decides": meaning.decides,
                "targets": list(meaning.targets),
            }
            for meaning in self.meanings
        ]
        sizes = [size.to_dict() for size in self.sizes]
        return {
            "step": self.step,
            "choices": choices,
            "defaults": self.defaults,
            "sizes": sizes,
        }

    @classmethod
    def from_dict(cls, structure: Structure, content: Mapping[str, Any]) -> "ElasticSpace":
        """Return the space that `to_dict` described; raise InputError if it does not fit."""
        known = {
            "units": {group.name for group in structure.groups},
            "keep": {part.name for part in removables(structure)},
            "size": set[str](),
        }
        try:
            meanings = []
            for each in content["choices"]:
                choice = Choice(each["name"], each["options"], each["active"])
                lacking = set(each["targets"]) - known[each["decides"]]
                if lacking:
                    raise InputError(
                        f"choice {choice.name!r} is about {', '.join(sorted(lacking))}, which "
                        "the analysis of this model does not find; make the elastic model again"
                    )
                meanings.append(
                    Meaning(choice=choice, decides=each["decides"], targets=tuple(each["targets"]))
                )
            sizes = [InputSize.from_dict(size) for size in content["sizes"]]
            step = content.get("step", _STEP)
            return cls(structure, meanings, content["defaults"], sizes, step)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"this is no space of an elastic model: {error!r}") from error
