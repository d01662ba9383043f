"""The anchors, small fixed models that every model is timed against, and their baseline."""

import hashlib
import json
import os
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from hwsearch.devices.base import Fingerprint
from hwsearch.devices.fingerprint import digest
from hwsearch.devices.latency_statistics import Floats
from hwsearch.errors import InputError
from hwsearch.files import write_atomic

ANCHOR_FILES = ("anchor.onnx", "memory_anchor.onnx")
_LAYERS = 3
_SCHEMA = 2


@cache
def anchors() -> tuple[bytes, ...]:
    """Return the anchors as ONNX files: three 3x3 convolutions each, float32.

    The first one, whose time is the unit of ratios, has 64 channels of 24 pixels, takes about 1 ms
    on one thread of a server and fits into the second-level cache. The second one is depthwise,
    with 16 channels of 256 pixels: its tensors of 4 MB do not fit. The bytes are the same
    everywhere. A kit, which lacks onnx, has them as files beside this module.
    """
    carried = [files("hwsearch.devices") / name for name in ANCHOR_FILES]
    if all(each.is_file() for each in carried):
        return tuple(each.read_bytes() for each in carried)
    return _built(channels=64, size=24), _built(channels=16, size=256, depthwise=True)


def _built(*, channels: int, size: int, depthwise: bool = False) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    bits = np.random.PCG64(20240229)
    weight_shape = (channels, 1 if depthwise else channels, 3, 3)
    image_shape = (1, channels, size, size)
    group: dict[str, Any] = {"group": channels} if depthwise else {}
    scale = np.sqrt(6.0 / np.prod(weight_shape[1:]))  # keeps the variance from layer to layer
    nodes, weights, last = [], [], "input"
    for layer in range(_LAYERS):
        raw = bits.random_raw(int(np.prod(weight_shape)))
        uniform = (raw >> np.uint64(11)).astype(np.float64) / 2.0**53
        values = ((2 * uniform - 1) * scale).astype(np.float32)
        name, out = f"weight{layer}", f"relu{layer}"
        weights.append(numpy_helper.from_array(values.reshape(weight_shape), name))
        nodes += [
            helper.make_node("Conv", [last, name], [f"conv{layer}"], pads=[1, 1, 1, 1], **group),
            helper.make_node("Relu", [f"conv{layer}"], [out]),
        ]
        last = out
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, image_shape)
        for end in ("input", last)
    ]
    graph = helper.make_graph(nodes, "anchor", ends[:1], ends[1:], weights)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="hwsearch")
    return bytes(model.SerializeToString(deterministic=True))


def cache_folder() -> Path:
    """Return the folder of baselines and engines; it may not exist yet.

    ``$HWSEARCH_CACHE``, else ``$XDG_CACHE_HOME/hwsearch``, else ``~/.cache/hwsearch``.
    """
    if given := os.environ.get("HWSEARCH_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hwsearch"


class Baseline:
    """The first anchor's times on one device, in one JSON file per fingerprint.

    After deletion of the file, ``path``, the baseline is measured again. ``digest`` is that of the
    fingerprint. The anchor runs one sample on devices of every batch size, which share the file.
    """

    def __init__(self, slug: str, fingerprint: Fingerprint) -> None:
        self.digest = digest(fingerprint)
        own = {name: 1 if name == "batch" else value for name, value in fingerprint.items()}
        self._fingerprint: Fingerprint = own
        self.path = cache_folder() / "baselines" / f"{slug}-{digest(own)}.json"

    def load(self) -> Floats | None:
        """Return the times of its turns in seconds; None without valid ones for this anchor."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["schema"] != _SCHEMA or kept["anchor"] != anchors_digest():
                return None
            turns_s = np.array(kept["turns_s"], dtype=np.float64)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sound = np.all(np.isfinite(turns_s)) and np.all(turns_s > 0)
        return turns_s if turns_s.ndim == 1 and turns_s.size > 1 and sound else None

    def save(self, turns_s: Floats) -> None:
        """Write times of turns in seconds; raise InputError where the folder is not writable."""
        record = {
            "schema": _SCHEMA,
            "anchor": anchors_digest(),
            "fingerprint": self._fingerprint,
            "turns_s": turns_s.tolist(),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.path, json.dumps(record, indent=1))
        except OSError as error:
            raise InputError(
                f"cannot write the anchor's baseline to {self.path}: {error}. "
                "Set HWSEARCH_CACHE to a folder that can be written."
            ) from error


def anchors_digest() -> str:
    """Return the SHA-256 of the anchors' files, in hex."""
    return hashlib.sha256(b"".join(anchors())).hexdigest()
