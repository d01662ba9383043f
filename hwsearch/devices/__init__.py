"""Latencies and outputs of models on devices."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hwsearch.devices.base import Device, Latency, MeasureSettings
from hwsearch.devices.spec import (
    DeviceFactory,
    DeviceOption,
    canonical_spec,
    parse_options,
    respelled,
    split_name,
    split_spec,
)
from hwsearch.devices.throughput import Batching, best_throughput, check_batch_sizes
from hwsearch.errors import DeviceError, InputError
from hwsearch.quantization import MIXED

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


def with_batch(device: Device, batch: int) -> Device:
    """Return a device with another batch size of timed runs.

    Raises:
        InputError: It has no option for it.
    """
    if device.fingerprint()["batch"] == batch:
        return device
    if isinstance(device, Batching):
        return device.with_batch(batch)
    factory = load_factory(split_name(device.spec)[0])
    if "batch" not in [option.name for option in factory.options]:
        raise InputError(
            f"device {device.spec!r} times batches of {device.fingerprint()['batch']} alone, so "
            "that it has no throughput at other batch sizes; measure latency"
        )
    return load_device(respelled(device.spec, batch=batch))


def mixed_spec(spec: str, precisions: Sequence[str]) -> str:
    """Return the spec of a device that takes files whose blocks have any of some precisions.

    Raises:
        InputError: The device takes files of one precision, or not of these.
    """
    factory = load_factory(split_name(spec)[0])
    if factory.takes:  # it is another's spec, or a file of measurements
        return spec
    device = parse_options(factory, split_spec(spec)[1])
    options = {option.name: option for option in factory.options}
    precision = options.get("precision")
    if precision is None or MIXED not in precision.allowed:
        raise InputError(
            f"device {spec!r} takes files of one precision; search for each precision alone, or "
            "on a device such as ort-cpu:threads=1"
        )
    if device["precision"] not in (precision.default, MIXED):
        raise InputError(
            f"device {spec!r} takes {device['precision']} files alone, and precision is to be "
            f"chosen among {', '.join(precisions)}; leave the device's precision away"
        )
    if refused := [each for each in precisions if each not in factory.mixes]:
        raise InputError(
            f"device {spec!r} takes no {' or '.join(refused)} in files of mixed precision; it "
            f"takes {', '.join(factory.mixes)}"
        )
    return canonical_spec(factory, {**device, "precision": MIXED})[0]


def measure(
    models: "Iterable[Path | str | onnx.ModelProto]",
    device: "str | Device" = "ort-cpu:threads=1",
    *,
    batch_sizes: Iterable[int] | None = None,
    seed: int = 0,
    settings: MeasureSettings | None = None,
) -> "pd.DataFrame":
    """Time ONNX files, or models in memory, against each other on one device.

    With ``batch_sizes`` they are timed at each of these too, and have a throughput. ``seed`` sets
    the order of turns. The default ``settings`` request ±1.5%.

    Returns:
        One row per model in the order given: ``model``, ``latency_ms`` (undisturbed), ``low`` and
        ``high`` (its 95% interval, ms), ``p50``, ``p90`` and ``p99`` (of single runs as they were,
        waiting included, ms), ``rounds``, ``runs``, ``ratio``,
        ``ratio_low`` and ``ratio_high`` (to the anchor: compare by these), ``cv``, ``anchor_ms``,
        ``baseline_ms``, ``device_ms`` and ``end_to_end_ms`` (without and with copies to and from
        the device, NaN where there are none), ``transfers`` (which of the two ``latency_ms`` is,
        "excluded" or "included"), ``warnings`` and ``error`` (text or empty). A failed model has
        an error and NaN for every number. With batch sizes also ``throughput``,
        ``throughput_low`` and ``throughput_high`` (samples a second at the best of them, and its
        95% interval), ``best_batch``, and ``throughput_at_N`` for every size N.

    Raises:
        InputError: There is no model, a file does not exist, the device is unknown, or it cannot
            be had with a batch size.
    """
    import pandas as pd

    sizes = () if batch_sizes is None else check_batch_sizes(batch_sizes)
    chosen = load_device(device)
    batched = {size: with_batch(chosen, size) for size in sizes}
    settings = settings or MeasureSettings()
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        named = [_as_file(model, i, Path(folder)) for i, model in enumerate(models)]
        if not named:
            raise InputError("there is no model to measure; give at least one ONNX file")
        files = {str(i): path for i, (_, path) in enumerate(named)}
        try:
            results = chosen.measure(files, seed=seed, settings=settings)
            at = {
                size: results
                if own is chosen
                else own.measure(files, seed=seed, settings=settings)
                for size, own in batched.items()
            }
        finally:
            if chosen is not device:
                chosen.close()
    rows = [_row(name, results[str(i)]) for i, (name, _) in enumerate(named)]
    for i, row in enumerate(rows if at else ()):
        row |= _throughput({size: found[str(i)] for size, found in at.items()}, row)
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


def _throughput(at: Mapping[int, Latency | DeviceError], row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns on throughput, and the warnings and the first error of the sizes."""
    found = {size: each for size, each in at.items() if isinstance(each, Latency)}
    errors = [f"at batch {n}: {each}" for n, each in at.items() if isinstance(each, DeviceError)]
    warnings = [
        f"at batch {size}: {text}"
        for size, latency in found.items()
        for text in latency.warnings
        if text not in row["warnings"]  # as those of the device's own batch are
    ]
    nan, best = float("nan"), None
    if not errors:
        best = best_throughput({n: (e.latency_ms, e.low_ms, e.high_ms) for n, e in found.items()})
    return {
        "throughput": best.value if best else nan,
        "throughput_low": best.low if best else nan,
        "throughput_high": best.high if best else nan,
        "best_batch": best.batch if best else nan,
        **{f"throughput_at_{n}": 1e3 * n / found[n].latency_ms if n in found else nan for n in at},
        "warnings": "; ".join(filter(None, [row["warnings"], *warnings])),
        "error": row["error"] or next(iter(errors), ""),
    }


_NUMBERS = (
    *("latency_ms", "low_ms", "high_ms", "p50_ms", "p90_ms", "p99_ms", "rounds", "runs"),
    *("ratio", "ratio_low", "ratio_high", "cv", "anchor_ms", "baseline_ms"),
    *("device_ms", "end_to_end_ms"),
)
_SHORT = {f"{name}_ms": name for name in ("low", "high", "p50", "p90", "p99")}
