"""Latencies and outputs of models on devices."""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hwsearch.devices.base import Device, Latency, MeasureSettings
from hwsearch.devices.spec import (
    DeviceFactory,
    DeviceOption,
    parse_options,
    split_name,
    split_spec,
)
from hwsearch.errors import DeviceError, InputError

if TYPE_CHECKING:
    import onnx
    import pandas as pd

__all__ = [
    "load_device",
    "load_factory",
    "device_names",
    "measure",
    "Device",
    "DeviceFactory",
    "DeviceOption",
    "Latency",
    "MeasureSettings",
]

GROUP = "hwsearch.devices"


def device_names() -> list[str]:
    """Return the sorted names of the registered devices; see `DeviceFactory.available`."""
    from hwsearch import plugins

    return plugins.names(GROUP)


def load_factory(name: str) -> DeviceFactory:
    """Return a device's entry point; raise InputError where none is registered or importable."""
    from hwsearch import plugins

    return cast(DeviceFactory, plugins.load(GROUP, name, "device"))


def load_device(spec: "str | Device") -> Device:
    """Create a device from its spec, such as ``ort-cpu:threads=1``; return a device unchanged.

    Raises:
        InputError: The device, an option or a value is unknown, or the device cannot be used on
            this machine.
    """
    if not isinstance(spec, str):
        return spec
    name, rest = split_name(spec)
    factory = load_factory(name)
    options = {} if factory.takes else parse_options(factory, split_spec(spec)[1])
    if factory.takes and not rest:
        raise InputError(f"device {spec!r} lacks {factory.takes}; write {name}:{factory.takes}")
    if reason := factory.available():
        raise InputError(f"device {name!r} cannot be used here: {reason}")
    return factory.create(rest) if factory.takes else factory.create(**options)


def measure(
    models: "Iterable[Path | str | onnx.ModelProto]",
    device: "str | Device" = "ort-cpu:threads=1",
    *,
    seed: int = 0,
    settings: MeasureSettings | None = None,
) -> "pd.DataFrame":
    """Time ONNX files, or models in memory, against each other on one device.

    ``seed`` sets the order of turns. The default ``settings`` request ±1.5%.

    Returns:
        One row per model in the order given: ``model``, ``latency_ms`` (undisturbed), ``low`` and
        ``high`` (its 95% interval, ms), ``p50``, ``p90`` and ``p99`` (of single runs as they were,
        waiting included, ms), ``rounds``, ``runs``, ``ratio``,
        ``ratio_low`` and ``ratio_high`` (to the anchor: compare by these), ``cv``, ``anchor_ms``,
        ``baseline_ms``, ``device_ms`` and ``end_to_end_ms`` (without and with copies to and from
        the device, NaN where there are none), ``transfers`` (which of the two ``latency_ms`` is,
        "excluded" or "included"), ``warnings`` and ``error`` (text or empty). A failed model has
        an error and NaN for every number.

    Raises:
        InputError: There is no model, a file does not exist, or the device is unknown.
    """
    import pandas as pd

    chosen = load_device(device)
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        named = [_as_file(model, i, Path(folder)) for i, model in enumerate(models)]
        if not named:
            raise InputError("there is no model to measure; give at least one ONNX file")
        files = {str(i): path for i, (_, path) in enumerate(named)}
        try:
            results = chosen.measure(files, seed=seed, settings=settings or MeasureSettings())
        finally:
            if chosen is not device:
                chosen.close()
    rows = [_row(name, results[str(i)]) for i, (name, _) in enumerate(named)]
    return pd.DataFrame(rows).rename(columns=_SHORT)


def _as_file(model: "Path | str | onnx.ModelProto", index: int, folder: Path) -> tuple[str, Path]:
    if isinstance(model, (str, Path)):
        path = Path(model)
        if not path.is_file():
            raise InputError(
                f"there is no model file {str(path)!r}; give the path of an ONNX file"
            )
        return str(path), path
    if not hasattr(model, "SerializeToString"):
        raise InputError(
            f"a model is a path or an onnx.ModelProto, not a {type(model).__name__}; "
            "hwsearch.to_onnx makes one from a subnet"
        )
    path = folder / f"{index}.onnx"
    path.write_bytes(model.SerializeToString())
    return model.graph.name or f"model {index}", path


def _row(name: str, result: Latency | DeviceError) -> dict[str, Any]:
    if isinstance(result, DeviceError):
        numbers = dict.fromkeys(_NUMBERS, float("nan"))
        return {"model": name, **numbers, "transfers": "", "warnings": "", "error": str(result)}
    found = {number: getattr(result, number) for number in _NUMBERS}
    return {
        "model": name,
        **{number: float("nan") if value is None else value for number, value in found.items()},
        "transfers": result.transfers or "",
        "warnings": "; ".join(result.warnings),
        "error": "",
    }


_NUMBERS = (
    *("latency_ms", "low_ms", "high_ms", "p50_ms", "p90_ms", "p99_ms", "rounds", "runs"),
    *("ratio", "ratio_low", "ratio_high", "cv", "anchor_ms", "baseline_ms"),
    *("device_ms", "end_to_end_ms"),
)
_SHORT = {f"{name}_ms": name for name in ("low", "high", "p50", "p90", "p99")}
