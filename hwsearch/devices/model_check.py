"""Refusing models whose numbers are of another precision than the device runs."""

from collections.abc import Mapping
from pathlib import Path

from hwsearch.errors import DeviceError, InputError


def wrong_precision(model: Path, device: str, precision: str) -> DeviceError | None:
    """Say why a device cannot take a model, None where it can.

    A file that cannot be read is left to the runtime, which says why.

    Args:
        model: An ONNX file.
        device: The device as written down.
        precision: What it runs: one of `hwsearch.models.precision.PRECISIONS`.
    """
    import onnx

    from hwsearch.models.external import stray_data
    from hwsearch.models.precision import precision_of

    try:
        read = onnx.load(model, load_external_data=False)
    except Exception:  # noqa: BLE001 - protobuf's own error class has no types
        return None
    if (stray := stray_data(read, model.parent)) is not None:
        return DeviceError(
            f"{model.name} keeps numbers in {stray!r:.120}, outside of its folder; put them into "
            "the model's file, or beside it"
        )
    try:
        found = precision_of(read)
    except InputError as error:
        return DeviceError(str(error))
    if found == precision:
        return None
    return DeviceError(
        f"{model.name} is {found}, and {device} takes {precision}: give a {precision} file, or "
        f"a device with precision={found}"
    )


def wrong_precisions(
    models: Mapping[str, Path], device: str, precision: str
) -> dict[str, DeviceError]:
    """The models that a device cannot take, by name, and why; see `wrong_precision`."""
    found = {name: wrong_precision(path, device, precision) for name, path in models.items()}
    return {name: error for name, error in found.items() if error is not None}
