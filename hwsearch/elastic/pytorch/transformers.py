"""Modules of the package transformers, from a folder with configuration and weights."""

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwsearch.elastic.pytorch.copying import first_line
from hwsearch.elastic.pytorch.sources import (
    ModuleSource,
    example_image,
    load_weights,
    package,
    seeded,
    seeded_noise,
)
from hwsearch.errors import InputError
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded
from hwsearch.supernets.interface import ImagePreprocessing
from hwsearch.supernets.weight_sources import is_random

_LENGTH, _SAMPLES = 128, 16_000  # of an example: tokens, and one second of sound


def load_folder(folder: str, checkpoint: str | None) -> ModuleSource:
    """Load a model of the package transformers.

    Args:
        folder: With ``config.json``, and weights unless there is a checkpoint. Code in it is not
            run, and nothing is downloaded.
        checkpoint: Other weights, or ``random:SEED``.

    Raises:
        InputError: It is no such folder, its model has an encoder and a decoder or takes texts and
            images, or the weights do not fit.
    """
    path = Path(folder)
    if not (path / "config.json").is_file():
        raise InputError(
            f"{folder!r} has no config.json; hf:FOLDER takes a folder that save_pretrained of the "
            "package transformers wrote, or the files of a model on the hub"
        )
    transformers = package("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        family = _family(transformers, config)
        if checkpoint is None:
            module = family.from_pretrained(path, config=config, local_files_only=True)
        else:
            module = seeded(lambda: family(config), checkpoint)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InputError(f"hf:{folder} cannot be loaded: {first_line(error)}") from error
    if checkpoint is not None and not is_random(checkpoint):
        load_weights(module, checkpoint, f"{type(module).__name__} in {folder!r}")
    if "decoder_input_ids" in inspect.signature(module.forward).parameters:
        raise InputError(
            f"hf:{folder} is {type(module).__name__}, an encoder with a decoder; give its encoder "
            "alone, by MODULE:FUNCTION: return model.get_encoder(), inputs"
        )
    _without_cache(module)
    settings = _settings(path)
    return ModuleSource(
        module=module.eval(),
        inputs=_inputs(module, config, settings),
        preprocessing=_preprocessing(settings),
        classes=_classes(config),
    )


def _without_cache(module: nn.Module) -> None:
    """Let a decoder return no keys and values; models have copies of their configuration."""
    for each in module.modules():
        config: Any = getattr(each, "config", None)
        if hasattr(config, "use_cache"):
            config.use_cache = False


def _family(transformers: Any, config: Any) -> Any:
    """Return the class of the model that a configuration names."""
    names = getattr(config, "architectures", None) or []
    found = getattr(transformers, names[0], None) if names else None
    if found is not None:
        return found
    if names:
        raise ValueError(
            f"its architecture {names[0]!r} is none of this version of transformers; code in the "
            "folder is not run. Load it in a function of your own: MODULE:FUNCTION"
        )
    mapping = transformers.models.auto.modeling_auto.MODEL_MAPPING
    return mapping[type(config)]


def _inputs(module: nn.Module, config: Any, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Return example inputs of one sample, after the name of the model's main input."""
    takes = inspect.signature(module.forward).parameters
    if {"input_ids", "pixel_values"} <= takes.keys():
        raise InputError(
            f"{type(module).__name__} takes texts and images together; return one of its parts, "
            "and example inputs, from a function of your own: MODULE:FUNCTION"
        )
    main = str(getattr(module, "main_input_name", "input_ids"))
    if main == "input_ids":
        return _tokens(module, config)
    if main == "pixel_values":
        height, width = _image_size(config, settings)
        return {main: example_image(int(getattr(config, "num_channels", 3)), height, width)}
    if main == "input_values" and not hasattr(config, "num_mel_bins"):
        return {main: seeded_noise(1, _SAMPLES)}
    raise InputError(
        f"{type(module).__name__} takes {main!r}, for which there is no example here; return "
        "model and example inputs from a function of your own: MODULE:FUNCTION"
    )


def _tokens(module: nn.Module, config: Any) -> dict[str, Tensor]:
    text = getattr(config, "text_config", config)
    # Some families keep the first two positions for themselves.
    length = min(_LENGTH, int(getattr(text, "max_position_embeddings", 0) or _LENGTH + 2) - 2)
    generator = torch.Generator().manual_seed(0)
    shape = (1, max(length, 1))
    ids = torch.randint(0, int(text.vocab_size), shape, generator=generator)
    inputs = {"input_ids": ids, "attention_mask": torch.ones(shape, dtype=torch.int64)}
    takes = inspect.signature(module.forward).parameters
    if "token_type_ids" in takes and getattr(text, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.zeros(shape, dtype=torch.int64)
    return {name: tensor for name, tensor in inputs.items() if name in takes}


def _settings(folder: Path) -> dict[str, Any]:
    """Return how images are preprocessed, as ``preprocessor_config.json`` says, or nothing."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return {}
    try:
        content = parsed_json(read_bounded(path, MAX_BYTES))
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _image_size(config: Any, settings: dict[str, Any]) -> tuple[int, int]:
    size = getattr(config, "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    side = _side(settings.get("crop_size")) or _side(settings.get("size")) or 224
    return side, side


def _side(size: Any) -> int | None:
    """Return the side in pixels that an entry of the settings gives."""
    if isinstance(size, dict):
        size = size.get("height", size.get("shortest_edge"))
    return size if isinstance(size, int) else None


def _preprocessing(settings: dict[str, Any]) -> ImagePreprocessing | None:
    resize = _side(settings.get("size"))
    mean, std = settings.get("image_mean"), settings.get("image_std")
    if resize is None or not isinstance(mean, list) or not isinstance(std, list):
        return None
    crop = _side(settings.get("crop_size")) if settings.get("do_center_crop", True) else None
    if not settings.get("do_normalize", True):
        mean, std = [0.0] * 3, [1.0] * 3
    return ImagePreprocessing(resize=resize, crop=crop or resize, mean=tuple(mean), std=tuple(std))


def _classes(config: Any) -> tuple[str, ...]:
    names = getattr(config, "id2label", None) or {}
    ordered = tuple(str(names[key]) for key in sorted(names))
    architecture = " ".join(getattr(config, "architectures", None) or [])
    known = "Classification" in architecture and not all(n.startswith("LABEL_") for n in ordered)
    return ordered if known else ()
