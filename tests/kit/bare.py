"""A Python that has what a kit needs and nothing else: numpy and onnxruntime."""

import importlib.metadata
import os
import subprocess
import venv
from pathlib import Path

NEEDED = ("numpy", "onnxruntime")


def make_python(folder: Path, packages=NEEDED) -> Path:
    """Make an environment of links to the packages of this one; return its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for package in packages:
        distribution = importlib.metadata.distribution(package)
        tops = {Path(str(file)).parts[0] for file in distribution.files or ()} - {".."}
        for top in tops:
            source = Path(str(distribution.locate_file(top)))
            if source.exists() and not (site / top).exists():
                (site / top).symlink_to(source)
    return folder / "bin" / "python"


def run(python: Path, *arguments, cwd: Path, timeout=50) -> subprocess.CompletedProcess:
    """Run it without anything of this environment but the cache folder of the tests."""
    kept = {name: os.environ[name] for name in ("PATH", "HWSEARCH_CACHE")}
    return subprocess.run(
        [str(python), "-I", *map(str, arguments)],
        cwd=cwd,
        env={**kept, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
