"""What a kit has in place of `hwsearch.devices.model_check`, which reads models with onnx.

All models of a kit are of one precision, their files are checked before they are used, and the
device is checked once.
"""

from collections.abc import Mapping
from pathlib import Path

from hwsearch.errors import DeviceError


def wrong_precision(
    model: Path,  # noqa: ARG001
    device: str,  # noqa: ARG001
    precision: str,  # noqa: ARG001
) -> DeviceError | None:
    """Refuse no model of a kit."""
    return None


def wrong_precisions(
    models: Mapping[str, Path],  # noqa: ARG001
    device: str,  # noqa: ARG001
    precision: str,  # noqa: ARG001
) -> dict[str, DeviceError]:
    """Refuse no model of a kit."""
    return {}
