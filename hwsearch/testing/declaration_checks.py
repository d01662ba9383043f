"""Checks of a supernet's declarations: attributes, card, inputs and outputs, space."""

import json
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from torch import nn

from hwsearch.errors import InputError
from hwsearch.space import Architecture, Choice, SearchSpace
from hwsearch.supernets.interface import Card, InputSpec, TensorSpec, of_modules
from hwsearch.testing.subject import Case, Examined, each_case

NO_OPTION = "no-such-option"


def declares_what_it_owes(subject: Examined) -> Iterator[str]:
    """All attributes of `hwsearch.supernets.interface.Network` are there and of their types."""
    network = subject.network
    if subject.lacking:
        family = "; this is a family: pass family.tiny()" if hasattr(network, "tiny") else ""
        yield f"{type(network).__name__} lacks {', '.join(subject.lacking)}{family}"
        return
    space: object = network.space
    if not isinstance(space, SearchSpace):
        yield f"space is {space!r}; give a hwsearch.SearchSpace"
        return
    if not re.fullmatch("[0-9a-f]{64}", str(network.digest)):
        yield (
            f"digest is {network.digest!r}; give 64 hex digits that name the weights "
            "(hwsearch.supernets.checkpoints.parameter_digest makes them)"
        )
    yield from _card_problems(network.card)
    if of_modules(network):
        types: object = network.recalibrate
        if not isinstance(types, tuple) or not all(
            isinstance(each, type) and issubclass(each, nn.Module) for each in types
        ):
            yield (
                f"recalibrate is {types!r}; give a tuple of module types, () where there are none"
            )
    own = ("onnx_model", "macs", "params") if subject.writes_onnx else ("subnet", "blocks")
    for method in ("input_spec", *own):
        if not callable(getattr(network, method)):
            yield f"{method} is {getattr(network, method)!r}; give a method that takes arch"
    yield from _default_problems(space, getattr(network, "defaults", {}))


def _card_problems(card: object) -> Iterator[str]:
    if not isinstance(card, Card):
        yield f"card is {card!r}; give a hwsearch.supernets.interface.Card"
        return
    for field in ("name", "description", "licence", "source"):
        value = getattr(card, field)
        if not (isinstance(value, str) and value.strip()):
            yield f"card.{field} is {value!r}; say it in words, 'unknown' where it is not known"
    try:
        json.dumps(dict(card.facts))
    except (TypeError, ValueError) as error:
        yield f"card.facts cannot be written as JSON: {error}"


def _default_problems(space: SearchSpace, defaults: object) -> Iterator[str]:
    if not isinstance(defaults, Mapping):
        yield f"defaults is {defaults!r}; give a mapping of choice names to options"
        return
    choices = {choice.name: choice for choice in space.choices}
    for name, option in defaults.items():
        options = choices[name].options if name in choices else None
        if options is None:
            yield f"defaults names {name!r}, which is no choice of the space"
        elif option not in options:
            yield f"defaults leaves {name!r} at {option!r}, which is none of {options!r}"


@each_case
def input_spec_is_plain(case: Case) -> Iterator[str]:
    """What goes in and comes out is said in plain values that fit each other."""
    spec: object = case.spec
    if not isinstance(spec, InputSpec):
        yield f"input_spec(arch) is {spec!r}; give a hwsearch.supernets.interface.InputSpec"
        return
    try:
        json.dumps(spec.to_dict())
    except (TypeError, ValueError) as error:
        yield f"the input spec cannot be written as JSON ({error}); give plain Python values"
        return
    names = [*(tensor.name for tensor in spec.inputs), *spec.outputs]
    if not spec.inputs or not spec.outputs:
        yield f"inputs {spec.inputs!r}, outputs {spec.outputs!r}; name at least one of either"
    if len(set(names)) < len(names) or not all(names):
        yield f"inputs and outputs are named {names}; give each a name of its own"
    for tensor in spec.inputs:
        yield from _tensor_problems(tensor)
    crop = spec.preprocessing
    if crop is not None and all(t.shape[-2:] != (crop.crop, crop.crop) for t in spec.inputs):
        yield (
            f"preprocessing crops to {crop.crop} x {crop.crop} pixels, but inputs have shapes "
            f"{', '.join(str(tensor.shape) for tensor in spec.inputs)}; make them agree"
        )
    if len(set(spec.classes)) < len(spec.classes):
        yield f"classes are not distinct: {spec.classes!r}"


def _tensor_problems(tensor: TensorSpec) -> Iterator[str]:
    if not all(type(size) is int and size > 0 for size in tensor.shape):
        yield f"input {tensor.name!r} has shape {tensor.shape!r}; give positive integers"
    known = isinstance(getattr(torch, tensor.dtype, None), torch.dtype)
    if not known or not hasattr(np, tensor.dtype):
        yield (
            f"input {tensor.name!r} has dtype {tensor.dtype!r}; spell it as NumPy and PyTorch do, "
            "such as 'float32' or 'int64'"
        )
    elif np.issubdtype(np.dtype(tensor.dtype), np.integer) and tensor.high is None:
        yield f"input {tensor.name!r} holds integers; say with high which ones are valid"


def space_reads_only_its_own(subject: Examined) -> Iterator[str]:
    """Illegal and foreign architectures are refused by name; legal ones survive being written."""
    yield from _refusals(subject)
    space = subject.space
    foreign = SearchSpace([Choice("colour", ("red", "green"))]).largest()[0]
    net = subject.net
    own: tuple[Callable[[Architecture], object], ...] = (net.subnet, net.input_spec, net.blocks)
    for method in (net.input_spec, net.onnx_model) if net.writes_onnx else own:
        try:
            method(foreign)
        except InputError:
            continue
        yield f"{method.__name__}(arch) takes an architecture of another space; refuse it"
    archs = space.sample(20, seed=1)
    mappings = [arch.mapping for arch in archs]
    if space.architectures(mappings).ids != archs.ids:
        yield "architectures made from mappings of architectures are others; keep their options"
    if space.from_indices(archs.indices).ids != archs.ids:
        yield "architectures made from indices of architectures are others; keep their options"
    if SearchSpace.from_json(space.to_json()).architectures(mappings).ids != archs.ids:
        yield "the space written as JSON and read again gives other architectures"


def _refusals(subject: Examined) -> Iterator[str]:
    space = subject.space
    largest = space.largest()[0].mapping
    for choice in (choice for choice in space.choices if choice.name in largest):
        without = {name: option for name, option in largest.items() if name != choice.name}
        named = [choice.name, *map(str, choice.options)]
        for what, mapping in (
            (f"option {NO_OPTION!r}", {**largest, choice.name: NO_OPTION}),
            ("no option", without),
        ):
            try:
                space.architectures(mapping)
            except InputError as error:
                unsaid = [each for each in named if each not in str(error)]
                if unsaid:
                    yield (
                        f"{what} for choice {choice.name!r} is refused with {str(error)!r}, which "
                        f"does not say {', '.join(unsaid)}; name the choice and its options"
                    )
            else:
                yield (
                    f"{what} for choice {choice.name!r} is accepted; refuse it with an InputError "
                    f"that names the choice and its options {choice.options!r}"
                )
