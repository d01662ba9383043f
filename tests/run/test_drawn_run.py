"""Runs whose pictures and pages are drawn: the other modules leave placeholders."""

import pytest

import hwsearch
import tests.run.search_parts as parts
from tests.run.warm_start_parts import files

pytestmark = pytest.mark.usefixtures("quick_infer", "device")
DRAWN = True


def test_same_seed_same_files(tmp_path):
    one, two = (hwsearch.search(**parts.SHORT, out=tmp_path / name) for name in ("one", "two"))
    page = (one.folder / "report.html").read_text()
    assert page.rstrip().endswith("</html>")
    ours, theirs = files(one.folder), files(two.folder)
    assert ours["front.png"].startswith(b"\x89PNG")
    # The first holds how long things took, and the last says where the run lies.
    for name in ("trials.sqlite", "SHA256SUMS", "report.html"):
        del ours[name], theirs[name]
    assert ours == theirs
