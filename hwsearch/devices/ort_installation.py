"""Installed builds of ONNX Runtime: several packages have the same import name."""

from collections.abc import Sequence
from importlib import metadata

ORT_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
)


def installed_builds(packages: Sequence[str] = ORT_PACKAGES) -> dict[str, str]:
    """Return the installed ones of packages, in this order, and their versions."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def mixed_builds() -> str | None:
    """Return the problem of several installed builds and its solution; None without one."""
    found = installed_builds()
    if len(found) < 2:
        return None
    named = " and ".join(f"{name} {version}" for name, version in found.items())
    keep, extra = (
        ("onnxruntime-gpu", "gpu") if "onnxruntime-gpu" in found else ("onnxruntime", "cpu")
    )
    return (
        f"{named} are both installed, and both are imported as onnxruntime: the files of the one "
        "overwrite those of the other, so that providers are missing and it is unknown which one "
        f"runs. Keep one: pip uninstall -y {' '.join(found)} && pip install 'hwsearch[{extra}]' "
        f"brings {keep} back alone"
    )


def missing_build(package: str, extra: str, why: str) -> str | None:
    """Return the problem where ``package``, which ``extra`` installs, is missing, else None."""
    found = installed_builds()
    if package in found:
        return None
    if not found:
        return f"{package} is not installed ({why}): pip install 'hwsearch[{extra}]'"
    named = ", ".join(f"{name} {version}" for name, version in found.items())
    return (
        f"{package} is not installed ({why}); here is {named}, which must go first: "
        f"pip uninstall -y {' '.join(found)} && pip install 'hwsearch[{extra}]'"
    )
