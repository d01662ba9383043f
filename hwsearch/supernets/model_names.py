"""Names of supernets that are trained models: files, folders of elastic models, modules."""

from pathlib import Path
from typing import Final

ONNX, ELASTIC = ".onnx", ".elastic"
MODULE_KINDS: Final = ("timm", "torchvision", "hf")
_SPACE = "space.json"  # in the folder of every elastic model


def is_elastic(name: str) -> bool:
    """Return whether a name is the folder of an elastic model, which may be absent."""
    return Path(name).suffix.lower() == ELASTIC or (Path(name).expanduser() / _SPACE).is_file()


def is_trained_model(name: str) -> bool:
    """Return whether a name is that of a trained model, not yet elastic: a file or a module."""
    return Path(name).suffix.lower() == ONNX or name.partition(":")[0] in MODULE_KINDS


def is_path(name: str) -> bool:
    """Return whether a name is a file or folder, so that it may be relative."""
    return Path(name).suffix.lower() == ONNX or is_elastic(name)
