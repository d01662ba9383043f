"""Trained models as they are given: ONNX files and models, PyTorch modules and their names."""

import inspect
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import onnx

from hwsearch import plugins
from hwsearch.elastic.model_file import proto_digest, read_file
from hwsearch.errors import InputError
from hwsearch.supernets.interface import ImagePreprocessing
from hwsearch.supernets.model_names import MODULE_KINDS, ONNX, is_elastic, why_no_model

if TYPE_CHECKING:
    from torch import nn

MODULE: Final = "PyTorch module"  # how the origin of a module's model begins
Shapes = Mapping[str, tuple[int, ...]]  # input -> shape of a sample, without the batch


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """A trained model that is not analysed yet.

    Attributes:
        name: For users.
        digest: SHA-256 of the model.
        given: Its file, or the model itself.
        proto: Its nodes, inputs and outputs; weights may be in other files.
        folder: Where settings of preprocessing and a tokenizer may lie.
        shapes: Shapes of samples that are known.
        preprocessing: Of images, where the package of the model says so.
        classes: Names of the classes that it scores, likewise.
        origin: What it is, where it is no file.
    """

    name: str
    digest: str
    given: Path | onnx.ModelProto
    proto: onnx.ModelProto
    folder: Path | None = None
    shapes: Shapes = field(default_factory=dict)
    preprocessing: ImagePreprocessing | None = None
    classes: tuple[str, ...] = ()
    origin: str = ""


def trained_model(
    source: "str | Path | onnx.ModelProto | nn.Module",
    inputs: Any = None,
    checkpoint: str | None = None,
) -> TrainedModel:
    """Return a trained model; see `hwsearch.elastify`.

    Raises:
        InputError: It cannot be read, is of no known kind, or the checkpoint does not fit.
    """
    if isinstance(source, onnx.ModelProto):
        _refuse_checkpoint("a model in memory", checkpoint)
        return _in_memory(source.graph.name or "model", source)
    if not isinstance(source, str | Path):
        _refuse_checkpoint("a module", checkpoint)
        return _of_module(source, inputs)
    if Path(source).suffix.lower() == ONNX or isinstance(source, Path):
        _refuse_checkpoint(f"{str(source)!r}", checkpoint)
        return _of_file(Path(source).expanduser())
    if is_elastic(source):
        raise InputError(
            f"{source!r} is an elastic model already: hwsearch search --supernet {source} --data "
            "...; to make another one, give the trained model"
        )
    if ":" in source:
        return _named(source, checkpoint)
    raise InputError(
        why_no_model(source)
        or f"{source!r} is no trained model: give an ONNX file (.onnx), "
        f"{' or '.join(MODULE_KINDS)}:NAME, or MODULE:FUNCTION of a function that returns "
        "a module and example inputs"
    )


def takes_nothing(name: str) -> bool:
    """Return whether ``MODULE:FUNCTION`` names a function without arguments.

    Such a function returns a module: those of supernets take the checkpoint.
    """
    if ":" not in name:
        return False
    try:
        return not inspect.signature(plugins.import_function(name, "supernet")).parameters
    except (InputError, TypeError, ValueError):
        return False  # it is refused where it is called


def is_module(found: object) -> bool:
    """Return whether an object is a PyTorch module, maybe with example inputs."""
    if "torch" not in sys.modules:
        return False
    from hwsearch.elastic.pytorch.sources import is_module as is_module_or_pair

    return is_module_or_pair(found)


def _of_file(path: Path) -> TrainedModel:
    proto, digest = read_file(path)
    return TrainedModel(
        name=path.stem,
        digest=digest,
        given=path,
        proto=proto,
        folder=path.absolute().parent,
    )


def _in_memory(name: str, proto: onnx.ModelProto, **known: Any) -> TrainedModel:
    """Return a model in memory; ``known`` are further attributes."""
    return TrainedModel(name=name, digest=proto_digest(proto), given=proto, proto=proto, **known)


def _of_module(
    module: "nn.Module", inputs: Any, name: str = "", given: str = "", **known: Any
) -> TrainedModel:
    if not callable(getattr(module, "state_dict", None)):
        raise InputError(
            f"a {type(module).__name__} is no trained model: give an ONNX file or model, or a "
            "torch.nn.Module with example inputs"
        )
    if inputs is None:
        raise InputError(
            f"module {type(module).__name__} needs example inputs: elastify(module, data, "
            "inputs=torch.zeros(1, 3, 224, 224)), a tuple of arguments, or a dict of them"
        )
    # It loads PyTorch, which ONNX files do without.
    from hwsearch.elastic.pytorch.module import export_module

    exported = export_module(module, inputs)
    shapes = {name: shape[1:] for name, shape in exported.shapes.items()}
    title = name or type(module).__name__
    origin = f"{MODULE} {given or title}"
    return _in_memory(title, exported.model, shapes=shapes, origin=origin, **known)


def _named(source: str, checkpoint: str | None) -> TrainedModel:
    from hwsearch.elastic.pytorch.sources import load_module

    kind, _, name = source.partition(":")
    found = load_module(source, checkpoint)
    is_folder = kind == "hf"
    return _of_module(
        found.module,
        found.inputs,
        Path(name).name if is_folder else name,
        source,
        preprocessing=found.preprocessing,
        classes=found.classes,
        folder=Path(name).expanduser().absolute() if is_folder else None,
    )


def _refuse_checkpoint(what: str, checkpoint: str | None) -> None:
    if checkpoint is not None:
        raise InputError(
            f"{what} has its weights in it, and takes no checkpoint ({checkpoint!r}); leave it out"
        )
