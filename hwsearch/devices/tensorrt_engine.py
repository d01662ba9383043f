"""TensorRT engines: built from ONNX files and cached, inside a worker process."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tensorrt as trt

from hwsearch.files import write_atomic

Loaded = TypeVar("Loaded")
Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
"""Least and largest shape of each input whose first size is not fixed."""


class Log(trt.ILogger):  # type: ignore[misc] # the library has no types
    """Collects TensorRT's error messages, which its functions do not raise."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        """Keep errors, drop other messages."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(message.strip())

    def last(self) -> str:
        """Return the last error."""
        return self.errors[-1].splitlines()[0] if self.errors else "no reason given"


class Parsed:
    """An ONNX file parsed by TensorRT, given by path or content; strongly typed.

    Raises:
        ValueError: TensorRT cannot read it, or has no implementation of a node.
    """

    def __init__(self, source: str | bytes, log: Log) -> None:
        self._log = log
        self._builder = trt.Builder(log)
        strongly = trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        # From 11 on networks are always strongly typed, and the flag is deprecated.
        flags = 1 << int(strongly) if int(trt.__version__.split(".")[0]) < 11 else 0
        self.network = self._builder.create_network(flags)
        self.content = source if isinstance(source, bytes) else Path(source).read_bytes()
        parser = trt.OnnxParser(self.network, log)
        path = source if isinstance(source, str) else None
        if not parser.parse(self.content, path):
            reasons = [parser.get_error(i).desc() for i in range(parser.num_errors)]
            raise ValueError(f"TensorRT cannot take the model: {'; '.join(reasons) or log.last()}")
        self._parser = parser  # it owns the weights of the network

    def build(self, shapes: Shapes, timings: Path) -> bytes:
        """Build an engine with the kernel timings cached in the file ``timings``, and extend them.

        The engine is optimised for the largest of the dynamic inputs' ``shapes``.
        """
        config = self._builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        if shapes:
            profile = self._builder.create_optimization_profile()
            for name, (least, largest) in shapes.items():
                profile.set_shape(name, least, largest, largest)
            config.add_optimization_profile(profile)
        kept = timings.read_bytes() if timings.is_file() else b""
        cache = config.create_timing_cache(kept)
        # A cache of another GPU or version is refused.
        if cache is None or not config.set_timing_cache(cache, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)
        serialised = self._builder.build_serialized_network(self.network, config)
        if serialised is None:
            raise ValueError(f"TensorRT cannot build an engine: {self._log.last()}")
        write_file(timings, bytes(config.get_timing_cache().serialize()))
        return bytes(serialised)


def cached_engine(
    load: Callable[[bytes], Loaded],
    build: Callable[[], bytes],
    content: bytes,
    shapes: Shapes,
    *,
    key: str,
    folders: list[Path],
) -> Loaded:
    """Load an engine from the first folder that has a valid one, else build and store it.

    ``load`` raises ValueError for damaged bytes. ``key`` is the digest of the device's
    fingerprint. The engine is stored in the first writable one of ``folders``.
    """
    text = f"{key} {sorted((name, *each) for name, each in shapes.items())}".encode()
    name = f"{hashlib.sha256(text + content).hexdigest()[:16]}.engine"
    for folder in folders:
        if (folder / name).is_file():
            try:
                return load((folder / name).read_bytes())
            except ValueError:
                continue
    engine = build()
    for folder in folders:
        if write_file(folder / name, engine):
            break
    return load(engine)


def write_file(path: Path, data: bytes) -> bool:
    """Write a file atomically; return False where its folder cannot be written."""
    try:
        write_atomic(path, data)
    except OSError:
        return False
    return True
