"""Preprocessing of the images of a plain model: stated, found beside its file, or by default."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hwsearch.errors import InputError, unknown
from hwsearch.files import MAX_BYTES, parsed_json, read_bounded
from hwsearch.supernets.interface import ImagePreprocessing

# Named ranges of what the model gets: scale, mean and std.
NAMED: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": (255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0..1": (255, (0.0,), (1.0,)),
    "-1..1": (255, (0.5,), (0.5,)),
    "0..255": (1, (0.0,), (1.0,)),
}
DEFAULT = "imagenet"
FIELDS = ("scale", "mean", "std", "resize", "layout", "colour")
FORM = (
    "give 'imagenet', '0..1', '-1..1' or '0..255' (what the pixels become), or scale=, mean= and "
    "std= for (pixel / scale - mean) / std, numbers of channels separated by '/'; and resize=, "
    "layout=NCHW or NHWC, colour=RGB or BGR; separated by commas"
)
COLOURS = {1: ("L",), 3: ("RGB", "BGR"), 4: ("RGBA",)}
LAYOUTS = ("NCHW", "NHWC")
# Share of the shorter side that is cropped, as in most evaluations on ImageNet (224 of 256); small
# images are not cropped.
CROPPED, CROPPED_FROM = 0.875, 96


def image_size(shape: Sequence[int], layout: str) -> tuple[int, int, int]:
    """Return height, width and channels of an image input of a shape without the batch."""
    first, second, third = shape
    return (first, second, third) if layout == "NHWC" else (second, third, first)


def preprocessing_of(
    text: str, shape: Sequence[int], layout: str = "NCHW", folder: Path | None = None
) -> ImagePreprocessing:
    """Return the preprocessing of images for an input.

    Args:
        text: Such as ``-1..1,resize=256``; empty for what lies beside the model, else ImageNet's.
        shape: Of the input without the batch.
        layout: Layout of the input; ``layout`` in the text decides where it is given.
        folder: The model's, in which ``preprocessor_config.json`` (transformers) or
            ``config.json`` (timm) may lie.

    Raises:
        InputError: The text is malformed, or does not fit the input.
    """
    fields = _fields(text)
    layout = fields.get("layout", layout)
    if layout not in LAYOUTS:
        raise unknown("layout of images", layout, LAYOUTS)
    height, width, channels = image_size(shape, layout)
    if channels not in COLOURS:
        raise InputError(
            f"preprocessing {text!r}: an input of shape {tuple(shape)} has {channels} channels as "
            f"{layout}; images have 1, 3 or 4"
        )
    beside = {} if folder is None else _beside(folder, min(height, width))
    colour = fields.get("colour", COLOURS[channels][0]).upper()
    if colour not in COLOURS[channels]:
        raise unknown(f"colour of images of {channels} channels", colour, COLOURS[channels])
    scale, mean, std = NAMED[DEFAULT]
    given = {"scale": scale, "mean": mean, "std": std, "resize": _resized(min(height, width))}
    given |= beside | fields
    scale = _number(text, "scale", given["scale"])
    means = _numbers(text, "mean", given["mean"], channels, turned=colour == "BGR")
    stds = _numbers(text, "std", given["std"], channels, turned=colour == "BGR")
    if scale <= 0 or min(map(abs, stds)) == 0:
        raise InputError(f"preprocessing {text!r}: scale must be above 0, and std not 0")
    if scale == 255 and max(map(abs, (*means, *stds))) > 2:
        raise InputError(
            f"preprocessing {text!r}: mean {means} and std {stds} are those of pixels from 0 to "
            "255; add scale=1"
        )
    return ImagePreprocessing(
        resize=_whole(text, given["resize"]),
        crop=min(height, width),
        mean=tuple(each * (scale / 255) for each in means),
        std=tuple(each * (scale / 255) for each in stds),
        layout=layout,
        colour=colour,
    )


def _resized(crop: int) -> int:
    return round(crop / CROPPED) if crop >= CROPPED_FROM else crop


def _fields(text: str) -> dict[str, Any]:
    """Return the stated fields: ``scale``, ``mean`` and ``std`` are all there or none."""
    fields: dict[str, Any] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, is_field, value = (each.strip() for each in part.partition("="))
        if not is_field:
            if part not in NAMED:
                raise unknown(f"preprocessing {text!r}: range", part, NAMED, FORM + ".")
            named = dict(zip(("scale", "mean", "std"), NAMED[part], strict=True))
        elif name not in FIELDS:
            raise unknown(f"preprocessing {text!r}: setting", name, FIELDS, FORM + ".")
        elif not value:
            raise InputError(f"preprocessing {text!r}: {name} is empty; {FORM}")
        else:
            named = {name: value}
        if twice := fields.keys() & named.keys():
            raise InputError(f"preprocessing {text!r}: {min(twice)} is given twice; keep one")
        fields |= named
    if "layout" in fields:
        fields["layout"] = fields["layout"].upper()
    if fields.keys() & {"scale", "mean", "std"}:
        fields = {"scale": 255, "mean": (0.0,), "std": (1.0,), **fields}
    return fields


def _numbers(
    text: str, name: str, given: Any, channels: int, *, turned: bool
) -> tuple[float, ...]:
    """Return a number for each channel; known ones of RGB are ``turned`` for BGR."""
    is_known = not isinstance(given, str)
    values = tuple(_number(text, name, part) for part in (given if is_known else given.split("/")))
    if len(values) == 1:
        return values * channels
    if is_known and channels == 1:
        return (round(sum(values) / len(values), 6),)
    if is_known:
        values = values[::-1] if turned else values
        return (*values, *values[:1])[:channels]
    if len(values) != channels:
        raise InputError(
            f"preprocessing {text!r}: {name} has {len(values)} numbers, and images have "
            f"{channels} channels; give one number, or one for each"
        )
    return values


def _number(text: str, name: str, given: Any) -> float:
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"preprocessing {text!r}: {name} is {given!r}, no number; {FORM}")
    return value


def _whole(text: str, given: Any) -> int:
    value = _number(text, "resize", given)
    if value != int(value) or not 1 <= value <= 16384:
        raise InputError(
            f"preprocessing {text!r}: resize is {given}; give the pixels of the shorter side, "
            "from 1 to 16384"
        )
    return int(value)


def _beside(folder: Path, crop: int) -> dict[str, Any]:
    """Return the settings that the files of transformers or timm beside a model state."""
    found: dict[str, Any] = {}
    stated = read_settings(folder / "preprocessor_config.json")
    mean, std = stated.get("image_mean"), stated.get("image_std")
    if stated.get("do_normalize") is False:
        mean, std = (0.0,), (1.0,)
    if _triple(mean) and _triple(std):
        factor = stated.get("rescale_factor", 1 / 255)
        scale = round(1 / factor, 6) if stated.get("do_rescale", True) else 1
        found = {"scale": scale, "mean": mean, "std": std}
        size = stated.get("size")
        short = size.get("shortest_edge") if isinstance(size, Mapping) else size
        if isinstance(short, int) and stated.get("do_center_crop", True) and short >= crop:
            found["resize"] = short
        elif stated.get("do_center_crop") is False or isinstance(size, Mapping):
            found["resize"] = crop
        return found
    timm = read_settings(folder / "config.json").get("pretrained_cfg")
    if isinstance(timm, Mapping) and _triple(timm.get("mean")) and _triple(timm.get("std")):
        found = {"scale": 255, "mean": timm["mean"], "std": timm["std"]}
        share = timm.get("crop_pct")
        if isinstance(share, (int, float)) and 0.1 < share <= 1:
            found["resize"] = math.floor(crop / share)
    return found


def _triple(given: Any) -> bool:
    is_list = isinstance(given, (list, tuple)) and len(given) in (1, 3)
    return is_list and all(isinstance(each, (int, float)) for each in given)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the object in a file of another tool, or an empty one where there is none."""
    try:
        found = parsed_json(read_bounded(path, MAX_BYTES))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
