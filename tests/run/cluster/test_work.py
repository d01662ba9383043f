"""Messages between a search and its workers: everything comes back as it was."""

import io

import numpy as np

from hwsearch.devices.frames import read_frame, write_frame
from hwsearch.run.cluster.jobs import (
    Findings,
    Known,
    Work,
    read_findings,
    read_known,
    write_findings,
    write_work,
)
from hwsearch.space import Choice, SearchSpace
from hwsearch.trials import Measurement

SPACE = SearchSpace([Choice("width", (1, 2, 3)), Choice("act", ("relu", "swish"))])
ARCH = SPACE.architectures([{"width": 2, "act": "relu"}])[0]


def measured(samples, **others):
    return Measurement(
        key=ARCH.key,
        quantity="top1",
        context="c",
        purpose="search",
        value=50.0,
        low=40.0,
        count=4,
        cost_s=0.25,
        samples=samples,
        **others,
    )


MEASUREMENTS = (
    measured(np.array([True, False, True, False])),
    measured(None, details={"why": ["a", None, 1.5]}),
    measured(np.arange(6, dtype=np.float32).reshape(2, 3)),
)


def sent(message):
    """What arrives at the other end of a pipe."""
    stream = io.BytesIO()
    write_frame(stream, *message)
    stream.seek(0)
    return read_frame(stream)


def test_work_arrives_whole():
    known = Known(measurements=MEASUREMENTS, pace=(1e9 / 3, 4))
    work = Work(archs=(ARCH,), quantities=("top1",), known=known)
    header, arrays = sent(write_work(work))
    assert header["quantities"] == ["top1"]
    assert list(SPACE.architectures(header["archs"])) == [ARCH]
    arrived = read_known(header, arrays)
    assert arrived == known
    assert [m.samples is None for m in arrived.measurements] == [False, True, False]
    assert arrived.measurements[0].samples.dtype == np.bool_


def test_findings_arrive_whole():
    findings = Findings(measurements=MEASUREMENTS, failed={"a": "it failed"})
    assert read_findings(*sent(write_findings(findings))) == findings
