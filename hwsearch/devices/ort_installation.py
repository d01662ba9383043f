"""Which build of ONNX Runtime is installed: several packages bring one import name."""

from importlib import metadata

ORT_PACKAGES = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
)


def installed_builds() -> dict[str, str]:
    """The installed packages that bring ``import onnxruntime``, and their versions."""
    found = {}
    for package in ORT_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def mixed_builds() -> str | None:
    """Say what is wrong where more than one build is installed, and how to repair it."""
    found = installed_builds()
    if len(found) < 2:
        return None
    named = " and ".join(f"{name} {version}" for name, version in found.items())
    keep, extra = (
        ("onnxruntime-gpu", "gpu") if "onnxruntime-gpu" in found else ("onnxruntime", "cpu")
    )
    return (
        f"{named} are both installed, and both are imported as onnxruntime: the files of the one "
        "lie over those of the other, so that providers are missing and nobody can say which one "
        f"runs. Keep one: pip uninstall -y {' '.join(found)} && pip install 'hwsearch[{extra}]' "
        f"brings {keep} back alone"
    )


def missing_build(package: str, extra: str, why: str) -> str | None:
    """Say what is missing where another build than a device needs is installed, or none.

    Args:
        package: The one that it needs.
        extra: The extra of hwsearch that brings it.
        why: What it is needed for.
    """
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
