"""Names of supernets that are trained models: files, folders of elastic models, modules."""

from pathlib import Path
from typing import Final

ONNX, ELASTIC = ".onnx", ".elastic"
MODULE_KINDS: Final = ("timm", "torchvision", "hf")
_SPACE = "space.json"  # in the folder of every elastic model
_WEIGHTS_ONLY = (
    "holds weights and no network: give MODULE:FUNCTION of a function that returns the module "
    "with its weights and example inputs, or, for a known supernet, --supernet NAME --checkpoint"
)
_TENSORFLOW = "is TensorFlow's: convert it to ONNX with tf2onnx"
_COMPILED = "is made for one runtime: give the ONNX model that it was made from"
_OTHERS: Final = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz"), _WEIGHTS_ONLY),
    **dict.fromkeys((".tflite", ".h5", ".keras", ".pb"), _TENSORFLOW),
    **dict.fromkeys((".ort", ".xml", ".engine", ".plan", ".trt"), _COMPILED),
    **dict.fromkeys((".mlmodel", ".mlpackage", ".gguf"), "cannot be read: give an ONNX model"),
}


def is_elastic(name: str) -> bool:
    """Return whether a name is the folder of an elastic model, which may be absent."""
    return Path(name).suffix.lower() == ELASTIC or (Path(name).expanduser() / _SPACE).is_file()


def is_trained_model(name: str) -> bool:
    """Return whether a name is that of a trained model, not yet elastic: a file or a module."""
    return Path(name).suffix.lower() == ONNX or name.partition(":")[0] in MODULE_KINDS


def is_path(name: str) -> bool:
    """Return whether a name is a file or folder, so that it may be relative."""
    return Path(name).suffix.lower() == ONNX or is_elastic(name)


def why_no_model(name: str) -> str | None:
    """Return why a file or folder is no model, and what to give; None if it may be a name.

    What can be a model is not opened.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() in _OTHERS:
        return f"{name!r} {_OTHERS[path.suffix.lower()]}"
    if path.is_file() and path.suffix.lower() != ONNX:
        return f"{name!r} is no ONNX file by its name: rename it to .onnx if it is one"
    if not path.is_dir() or is_elastic(name):
        return None
    models = sorted(each.name for each in path.glob(f"*{ONNX}"))
    if models:
        return f"{name!r} is a folder; give the file in it: {', '.join(models[:5])}"
    if (path / "config.json").is_file():
        return f"{name!r} is a folder; if transformers wrote it, give hf:{name}"
    return f"{name!r} is a folder without an ONNX model: give an .onnx file or NAME.elastic"
