"""What a kit has in place of `hwsearch.export.precision`, which reads models with onnx."""

from pathlib import Path

from hwsearch.kit.manifest import PRECISION


def precision_of(model: Path) -> str:  # noqa: ARG001 - the models of a kit are all of one
    """Return the precision of a kit's models, whose files are checked before this is asked."""
    return PRECISION
