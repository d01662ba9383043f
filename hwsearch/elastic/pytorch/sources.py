"""Modules by name: ``timm:NAME``, ``torchvision:NAME``, ``hf:FOLDER``, ``MODULE:FUNCTION``."""

import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hwsearch import plugins
from hwsearch.elastic.pytorch.copying import first_line
from hwsearch.errors import InputError, unknown
from hwsearch.supernets.checkpoint_files import read_weights
from hwsearch.supernets.interface import ImagePreprocessing
from hwsearch.supernets.state_fit import fit_state
from hwsearch.supernets.weight_sources import is_random, seed_of

_MAX_CLASSES_TRIES = 2  # builds of a model: with its own number of classes, and the checkpoint's


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ModuleSource:
    """A module that was loaded by name.

    Attributes:
        module: With its weights.
        inputs: Example inputs, as of `hwsearch.elastic.pytorch.module.read_module`.
        preprocessing: Of images, where the package that it comes from says so.
        classes: Names of the classes that it scores, where they are known.
    """

    module: nn.Module
    inputs: Any
    preprocessing: ImagePreprocessing | None = None
    classes: tuple[str, ...] = ()


def load_module(source: str, checkpoint: str | None = None) -> ModuleSource:
    """Load a module by name.

    Args:
        source: ``timm:NAME`` or ``torchvision:NAME`` for a model of that package, ``hf:FOLDER``
            for a folder of the package transformers, with ``config.json`` and weights, or
            ``MODULE:FUNCTION`` for a function that returns a module and its example inputs.
        checkpoint: A file of weights, or ``random:SEED``. None takes the weights that the package
            has for the name (it downloads them unless they are in its cache), those of the
            folder, or those that the function gave.

    Raises:
        InputError: The package is absent, the name is unknown, or the weights do not fit.
    """
    kind, _, name = source.partition(":")
    if kind == "hf":
        from hwsearch.elastic.pytorch.transformers import load_folder

        return load_folder(name, checkpoint)
    loaders = {"timm": _timm, "torchvision": _torchvision}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages, on initialisation and deprecation
        if kind in loaders:
            return loaders[kind](name, checkpoint)
        return _of_function(source, checkpoint)


def package(name: str) -> Any:
    """Import a package that hwsearch does not need by itself; raise InputError without it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"package {name!r} cannot be imported ({error}); install it: pip install {name}"
        ) from error


def load_weights(module: nn.Module, checkpoint: str, what: str) -> None:
    """Load a checkpoint into a module, or fill it with seeded random weights.

    Raises:
        InputError: Names or shapes differ.
    """
    problem = _fill(module, checkpoint)
    if problem:
        raise InputError(f"checkpoint {checkpoint!r} is not of {what}: {problem}")


def seeded(build: Callable[[], nn.Module], checkpoint: str | None) -> nn.Module:
    """Build a module with the seed of ``random:SEED``, or 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(checkpoint) or 0)
        return build()


def _fill(module: nn.Module, checkpoint: str) -> str:
    """Load a checkpoint into a module; return what does not fit, or an empty text."""
    if is_random(checkpoint):
        return ""
    state = read_weights(checkpoint).state
    expected = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if isinstance(tensor, Tensor) and not name.endswith("num_batches_tracked")
    }
    fit, ours = fit_state(state, expected)
    if not fit.exact:
        return str(fit)
    module.load_state_dict({name: ours[name] for name in expected}, strict=False)
    return ""


def _with_classes(
    build: Callable[..., nn.Module], checkpoint: str | None, what: str, option: str
) -> nn.Module:
    """Build a model for as many classes as its checkpoint has.

    ``build`` takes the number of classes by the argument ``option``.
    """
    module = seeded(build, checkpoint)
    if checkpoint is None or is_random(checkpoint):
        return module
    problem = _fill(module, checkpoint)
    if problem:
        state = read_weights(checkpoint).state
        for n_classes in _class_counts(module.state_dict(), state):
            other = seeded(lambda n=n_classes: build(**{option: n}), checkpoint)  # type: ignore[misc]
            if not _fill(other, checkpoint):
                return other
        raise InputError(f"checkpoint {checkpoint!r} is not of {what}: {problem}")
    return module


def _class_counts(expected: Mapping[str, Any], state: Mapping[str, Tensor]) -> list[int]:
    """Return numbers of outputs of layers of another size in a checkpoint, the last first."""
    counts = []
    for name, tensor in state.items():
        ours = expected.get(name.removeprefix("module."))
        if isinstance(ours, Tensor) and ours.ndim == tensor.ndim and ours.shape != tensor.shape:
            counts.append(int(tensor.shape[0]))
    return list(dict.fromkeys(reversed(counts)))[:_MAX_CLASSES_TRIES]


def _timm(name: str, checkpoint: str | None) -> ModuleSource:
    timm = package("timm")
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models())
    what = f"timm model {name!r}"

    def build(**options: Any) -> nn.Module:
        module: nn.Module = timm.create_model(name, pretrained=checkpoint is None, **options)
        return module

    try:
        module = _with_classes(build, checkpoint, what, "num_classes")
    except (OSError, RuntimeError) as error:
        raise _no_weights(what, error) from error
    # Branches in parallel, as of RepVGG and MobileOne, become the one layer that they are.
    module = timm.utils.reparameterize_model(module.eval())
    data = timm.data.resolve_model_data_config(module)
    channels, height, width = data["input_size"]
    preprocessing = None
    if channels == 3 and height == width:
        preprocessing = ImagePreprocessing(
            resize=math.floor(height / data["crop_pct"]),
            crop=height,
            mean=tuple(map(float, data["mean"])),
            std=tuple(map(float, data["std"])),
        )
    return ModuleSource(
        module=module,
        inputs=example_image(channels, height, width),
        preprocessing=preprocessing,
    )


def _torchvision(name: str, checkpoint: str | None) -> ModuleSource:
    models = package("torchvision.models")
    if name not in models.list_models():
        raise unknown("torchvision model", name, models.list_models())
    what = f"torchvision model {name!r}"
    weights = next(iter([getattr(models.get_model_weights(name), "DEFAULT", None)]))

    def build(**options: Any) -> nn.Module:
        extra = {} if "backbone" in name else options
        if name.startswith(("deeplab", "fcn", "lraspp")) or "_fpn" in name or "ssd" in name:
            extra = {"weights_backbone": None, **extra}
        if name in ("googlenet", "inception_v3"):
            extra = {"init_weights": False, **extra}
        module: nn.Module = models.get_model(name, weights=None, **extra)
        return module

    classes: tuple[str, ...] = ()
    if checkpoint is None:
        if weights is None:
            raise InputError(f"{what} comes without weights; give a checkpoint")
        module = models.get_model(name, weights=None, **_as_trained(name, weights))
        try:
            state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        except (OSError, RuntimeError) as error:
            raise _no_weights(what, error) from error
        module.load_state_dict(state)
        classes = tuple(weights.meta.get("categories", ()))
    else:
        module = _with_classes(build, checkpoint, what, "num_classes")
    inputs, preprocessing = _torchvision_inputs(weights)
    return ModuleSource(module=module, inputs=inputs, preprocessing=preprocessing, classes=classes)


def _as_trained(name: str, weights: Any) -> dict[str, Any]:
    """Return arguments with which a model has the structure of its published weights."""
    found: dict[str, Any] = {"num_classes": len(weights.meta["categories"])}
    if name in ("googlenet", "inception_v3"):
        found |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    if name.startswith(("deeplab", "fcn")):
        found |= {"aux_loss": True, "weights_backbone": None}
    if name.startswith("lraspp"):
        found["weights_backbone"] = None
    return found


def _torchvision_inputs(weights: Any) -> tuple[Tensor, ImagePreprocessing | None]:
    """Return an example input and the preprocessing that published weights of a model have."""
    transforms = None if weights is None else weights.transforms()
    crop = list(getattr(transforms, "crop_size", ()))
    resize = getattr(transforms, "resize_size", None)
    if len(crop) == 2:  # of a video
        return seeded_noise(1, 3, 16, *crop), None
    if len(crop) == 1 and isinstance(resize, list) and len(resize) == 1:
        preprocessing = ImagePreprocessing(
            resize=resize[0],
            crop=crop[0],
            mean=tuple(transforms.mean),  # type: ignore[union-attr]
            std=tuple(transforms.std),  # type: ignore[union-attr]
        )
        return example_image(3, crop[0], crop[0]), preprocessing
    return example_image(3, 224, 224), None


def _of_function(source: str, checkpoint: str | None) -> ModuleSource:
    """Call a function of the user's that returns a module and its example inputs."""
    function = plugins.import_function(source, "module")
    takes_checkpoint = _takes_argument(function)
    try:
        result = function(checkpoint) if takes_checkpoint else function()
    except InputError:
        raise
    except Exception as error:
        # The function is the user's: any exception in it is an error in the user's input.
        raise InputError(
            f"module {source!r}: {type(error).__name__}: {first_line(error)}"
        ) from error
    found = of_result(result, source)
    if checkpoint is not None and not takes_checkpoint:
        load_weights(found.module, checkpoint, f"module {source!r}")
    return found


def is_module(result: Any) -> bool:
    """Return whether a function's result is a module, maybe with example inputs."""
    is_pair = isinstance(result, tuple) and len(result) == 2
    return isinstance(result[0] if is_pair else result, (nn.Module, ModuleSource))


def of_result(result: Any, source: str) -> ModuleSource:
    """Return module and example inputs that a function returned; raise InputError for others."""
    if isinstance(result, ModuleSource):
        return result
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], nn.Module):
        return ModuleSource(module=result[0], inputs=result[1])
    given = type(result).__name__
    if isinstance(result, tuple):
        given = f"a tuple of {', '.join(type(each).__name__ for each in result) or 'nothing'}"
    raise InputError(
        f"module {source!r} returned {given}; it returns a torch.nn.Module and its example "
        "inputs: return module, torch.zeros(1, 3, 224, 224). Inputs are a tensor, a tuple of "
        "arguments or a dict of keyword arguments"
    )


def _takes_argument(function: Callable[..., Any]) -> bool:
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False


def example_image(channels: int, height: int, width: int) -> Tensor:
    """Return one image of seeded noise: (1, channels, height, width)."""
    return seeded_noise(1, channels, height, width)


def seeded_noise(*shape: int) -> Tensor:
    """Return standard normal numbers of seed 0."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _no_weights(what: str, error: BaseException) -> InputError:
    return InputError(
        f"the weights of {what} cannot be had: {first_line(error)}. Download them and give "
        "--checkpoint FILE, or take random ones to try it: --checkpoint random:0"
    )
