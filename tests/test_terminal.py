"""What the terminal says of fronts and searches."""

from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console

from hwsearch.run.search_summary import Comparison, PredictionQuality, SearchSummary
from hwsearch.terminal import front_table, summary_lines

SUMMARY = SearchSummary(
    objectives={"top1": "%", "latency": "ms"},
    predicted=(),
    metric="top1",
    evaluated=20,
    failed=1,
    reused=0,
    members=3,
    reference={"top1": 50.0, "latency": 6.0},
    hypervolumes=tuple(float(min(10 * n, 120)) for n in range(20)),
    gain=4.0,
    fits=tuple(
        PredictionQuality(objective=name, evaluated=n, n=min(n - 8, 16), tau=tau, covered=0.9)
        for name, tau in (("top1", 0.8), ("latency", None))
        for n in (12, 16, 20)
    ),
    random=100.0,
    uniform=({"top1": 60.0, "latency": 1.0}, {"top1": 82.0, "latency": 5.0}),
    uniform_hypervolume=90.0,
    uniform_at_knee=65.0,
    knee={"top1": 80.0, "latency": 2.0},
    largest={"top1": 85.0, "latency": 5.5},
    versus=(
        Comparison(
            member="knee", key="b", cost="latency", times=2.75, points=-5.0, low=-6.0, high=-4.0
        ),
    ),
)
ENDS = {"": 86.32, "_low": 84.92, "_high": 87.72}


def shown(front, width=200):
    console = Console(width=width)
    with console.capture() as captured:
        console.print(front_table(front, [("top1", "%"), ("latency", "ms")], "b"))
    return captured.get()


class TestFrontTable:
    FRONT = pd.DataFrame(
        {
            "key": list("abcd"),
            "top1": [70.0, 80.0, 81.0, 82.0],
            "latency": [1.0, 2.0, 3.0, 4.0],
            "macs": [1e6] * 4,
        }
    )

    def test_probabilities_are_percentages_and_never_certain(self):
        table = shown(self.FRONT.assign(probability=[1.0, 0.994, 0.62, 0.001]))
        assert "on front" in table
        rows = [line.split() for line in table.splitlines() if line.strip()[:1] in "abcd"]
        cells = {row[0]: row[-2] if row[-1] == "knee" else row[-1] for row in rows if row}
        assert {key: cells[key] for key in "abcd"} == {
            "a": ">99%", "b": "99%", "c": "62%", "d": "<1%",
        }  # fmt: skip

    def test_fits_a_terminal_of_80_columns(self):
        front = pd.DataFrame(
            {
                "key": ["98cdc8add3ce24bd", "b"],
                **{f"top1{of}{end}": [v] * 2 for of in ("", "_report") for end, v in ENDS.items()},
                **{f"latency{end}": [v / 100] * 2 for end, v in ENDS.items()},
                "macs": [57.1e6] * 2,
                "probability": [1.0] * 2,
            }
        )
        first, second = [line for line in shown(front, 80).splitlines() if "57.1 M" in line]
        assert "…" not in first
        assert first.split()[0] == "98cdc8add3ce24bd"
        assert second.rstrip().endswith(">99% knee")

    def test_candidates_have_none(self):
        assert "on front" not in shown(self.FRONT)


class TestAccountLines:
    def test_say_it_all_in_a_few_lines(self):
        assert summary_lines(SUMMARY) == [
            "search   3 of 20 evaluations are on the front (15%), 1 of them failed; "
            "hypervolume 120 (% x ms)",
            "         50 more would add 4 (3.3%), predicted",
            "         top1 as it was predicted, last 12: 90% inside 95% intervals, tau 0.80",
            "         latency as it was predicted, last 12: 90% inside 95% intervals",
            "against  hypervolume of as many drawn by chance, predicted: 100 (83%); of uniform "
            "scaling (2 subnets): 90 (75%)",
            "         at the knee's latency, top1 80 where uniform scaling has 65, interpolated",
            "         largest subnet: 2.75 times the latency of the knee, whose top1 differs by "
            "-5 (-6 to -4, search images)",
        ]

    def test_leave_out_what_is_not_known(self):
        summary = replace(
            SUMMARY, failed=0, fits=(), gain=None, random=None, uniform_hypervolume=None,
            uniform_at_knee=None, versus=(),
        )  # fmt: skip
        (line,) = summary_lines(summary)
        assert "failed" not in line

    def test_say_what_was_reused(self):
        assert ", 7 reused; hyper" in summary_lines(replace(SUMMARY, reused=7))[0]

    def test_of_a_search_without_volume_have_no_shares(self):
        lines = summary_lines(replace(SUMMARY, hypervolumes=(0.0,) * 20))
        assert not [line for line in lines if "against" in line]
        assert "         50 more would add 4, predicted" in lines

    def test_of_unscored_members_give_the_cost(self):
        versus = Comparison(
            member="best", key="c", cost="macs", times=1.5, points=None, low=None, high=None
        )
        line = summary_lines(replace(SUMMARY, versus=(versus,)))[-1]
        assert line == "         largest subnet: 1.5 times the macs of the best"


@pytest.mark.parametrize("gain", [0.0, 1e-9])
def test_nothing_more_to_gain_is_said(gain):
    line = summary_lines(replace(SUMMARY, gain=gain))[1]
    assert "(0.0%), predicted" in line
