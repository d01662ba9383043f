"""What every store owes: subclass `StoreContract` and give it an empty ``store`` fixture."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.trials import Measurement, Trial, TrialState


@dataclass(frozen=True)
class Arch:
    """As much of an architecture as a store looks at."""

    key: str
    mapping: dict


def arch(key, **choices):
    return Arch(key, choices or {"depth": 2})


def measurement(key="a", **changes):
    fields = {
        "key": key,
        "quantity": "top1",
        "context": "search images, 2500",
        "purpose": "search",
        "value": 81.25,
        "count": 2500,
        "cost_s": 1.5,
    }
    return Measurement(**(fields | changes))


class StoreContract:
    def test_is_empty_at_first(self, store):
        assert store.trials() == []
        assert store.measurements() == []
        assert store.find("a", "top1", "c", "search") is None

    def test_proposals_keep_their_order_and_options(self, store):
        mapping = {"z.depth": 3, "a.width": 0.1, "kind": "mb", "se": True, "none": False, "k": 1}
        first = store.propose([Arch("b", mapping), arch("a")], round=0, origin="sample")
        second = store.propose(iter([arch("c")]), round=np.int64(1), origin="search")
        trials = store.trials()
        assert trials == first + second
        assert trials[0] == Trial(number=0, key="b", choices=mapping, round=0, origin="sample")
        assert [(t.number, t.key, t.round, t.origin) for t in trials] == [
            (0, "b", 0, "sample"),
            (1, "a", 0, "sample"),
            (2, "c", 1, "search"),
        ]
        found = trials[0].choices
        assert list(found) == list(mapping)
        assert [type(option) for option in found.values()] == [int, float, str, bool, bool, int]

    def test_an_empty_batch_is_no_error(self, store):
        assert store.propose([], round=0, origin="sample") == []
        store.add_all([])
        assert store.trials() == []

    @pytest.mark.parametrize("batch", ["ba", "bcb"])
    def test_a_key_is_proposed_once_and_a_batch_is_all_or_none(self, store, batch):
        store.propose([arch("a")], round=0, origin="sample")
        with pytest.raises(InputError, match=f"architecture {batch[-1]} was proposed before"):
            store.propose([arch(key) for key in batch], round=1, origin="search")
        assert [trial.key for trial in store.trials()] == ["a"]
        store.propose([arch("b")], round=1, origin="search")
        assert store.trial("b").number == 1

    def test_a_batch_that_breaks_off_stores_nothing(self, store):
        def batch():
            yield arch("a")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            store.propose(batch(), round=0, origin="sample")
        assert store.trials() == []
        store.propose([arch("a")], round=0, origin="sample")

    def test_forecasts_come_back_exactly(self, store):
        forecast = {"top1": (81.25, 1 / 3), "latency": (0.1 + 0.2, 0.0)}
        forecasts = {"a": forecast, "x": {"top1": (1.0, 1.0)}}
        proposed = store.propose([arch("a"), arch("b")], 0, "search", forecasts)
        assert store.trials() == proposed
        assert [trial.forecast for trial in store.trials()] == [forecast, {}]
        store.start("a")
        store.finish("a")
        assert store.trial("a").forecast == forecast

    @pytest.mark.parametrize("bad", [(float("nan"), 1.0), (1.0, float("inf")), (1.0, -1.0)])
    def test_a_forecast_that_is_none_is_refused_by_name(self, store, bad):
        with pytest.raises(InputError, match="forecast of top1 of b refused"):
            store.propose([arch("a"), arch("b")], 0, "search", {"b": {"top1": bad}})
        assert store.trials() == []

    def test_states(self, store):
        store.propose([arch(key) for key in "abcd"], round=0, origin="sample")
        for key in "abc":
            store.start(key)
        store.finish("a")
        store.fail("b", "the runtime crashed")
        states = {trial.key: (trial.state, trial.reason) for trial in store.trials()}
        assert states == {
            "a": (TrialState.DONE, None),
            "b": (TrialState.FAILED, "the runtime crashed"),
            "c": (TrialState.RUNNING, None),
            "d": (TrialState.PROPOSED, None),
        }
        for trial in store.trials():
            assert store.trials(trial.state) == [trial]
            assert store.trial(trial.key) == trial
            assert isinstance(trial.state, TrialState)

    def test_an_interrupted_trial_starts_again(self, store):
        store.propose([arch("a")], round=0, origin="sample")
        store.start("a")
        store.start("a")
        assert store.trial("a").state is TrialState.RUNNING

    def test_a_trial_may_finish_or_fail_without_starting(self, store):
        store.propose([arch("a"), arch("b")], round=0, origin="sample")
        store.finish("a")
        store.fail("b", "no data")
        assert [trial.state for trial in store.trials()] == [TrialState.DONE, TrialState.FAILED]

    @pytest.mark.parametrize("end", ["done", "failed"])
    @pytest.mark.parametrize("change", ["start", "finish", "fail", "propose"])
    def test_a_finished_trial_never_changes(self, store, end, change):
        store.propose([arch("a")], round=0, origin="sample")
        if end == "done":
            store.finish("a")
        else:
            store.fail("a", "first reason")
        before = store.trial("a")
        with pytest.raises(InputError, match=r"never changes|proposed before"):
            {
                "start": lambda: store.start("a"),
                "finish": lambda: store.finish("a"),
                "fail": lambda: store.fail("a", "second reason"),
                "propose": lambda: store.propose([arch("a", depth=3)], round=1, origin="search"),
            }[change]()
        assert store.trials() == [before]

    def test_a_finished_trial_takes_more_measurements(self, store):
        store.propose([arch("a")], round=0, origin="sample")
        store.finish("a")
        store.add(measurement(purpose="report"))
        assert len(store.measurements("a")) == 1

    def test_a_failure_needs_a_reason(self, store):
        store.propose([arch("a")], round=0, origin="sample")
        with pytest.raises(InputError, match="without a reason"):
            store.fail("a", " ")
        assert store.trial("a").state is TrialState.PROPOSED

    def test_an_unknown_key_is_refused(self, store):
        store.propose([arch("a")], round=0, origin="sample")
        for call in (
            lambda: store.trial("x"),
            lambda: store.start("x"),
            lambda: store.finish("x"),
            lambda: store.fail("x", "why"),
            lambda: store.add(measurement("x")),
            lambda: store.add_all([measurement("a"), measurement("x")]),
        ):
            with pytest.raises(InputError, match="no trial has the key 'x'"):
                call()
        assert store.measurements() == []
        assert store.measurements("x") == []

    def test_a_measurement_comes_back_as_it_went_in(self, store):
        store.propose([arch("a")], round=0, origin="sample")
        full = measurement(
            low=79.7,
            high=82.8,
            samples=np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
            details={"warnings": ["noisy"], "nested": {"cv": 0.1, "none": None}, "n": 3},
        )
        bare = measurement(purpose="report", value=0.0)
        store.add(full)
        store.add(bare)
        assert store.measurements() == [full, bare]
        assert store.find(*full.identity) == full
        found = store.find(*bare.identity)
        assert (found.low, found.high, found.samples, found.details) == (None, None, None, {})

    def test_floats_come_back_exactly(self, store):
        rng = np.random.default_rng(0)
        numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -2.5, 1e16 + 2, np.float32(0.1)]
        numbers += rng.standard_normal(200).tolist()
        store.propose([arch("a", width=0.1 + 0.2)], round=0, origin="sample")
        store.add_all(
            measurement(
                context=str(i), value=x, low=x, high=x, cost_s=abs(x), details={"x": float(x)}
            )
            for i, x in enumerate(numbers)
        )
        for x, found in zip(numbers, store.measurements(), strict=True):
            assert (found.value, found.low, found.high, found.details["x"]) == (x, x, x, x)
            assert found.cost_s == abs(x)
            assert type(found.value) is float
        assert store.trial("a").choices == {"width": 0.1 + 0.2}

    @pytest.mark.parametrize(
        "samples",
        [
            np.random.default_rng(1).standard_normal(1000),
            np.array([1.5, np.nan, np.inf, -0.0]),
            np.array([True, False, True]),
            np.arange(12, dtype=">i2").reshape(3, 4)[:, ::2],
            np.empty((0, 5), dtype=np.uint8),
            np.array(2.5),
        ],
        ids=["normal", "odd floats", "bool", "big-endian strided", "empty", "scalar"],
    )
    def test_samples_come_back_exactly(self, store, samples):
        store.propose([arch("a")], round=0, origin="sample")
        store.add(measurement(samples=samples))
        found = store.measurements()[0].samples
        assert (found.dtype, found.shape) == (samples.dtype, samples.shape)
        assert found.tobytes() == samples.tobytes()

    def test_a_measurement_is_not_done_again(self, store):
        store.propose([arch("a"), arch("b")], round=0, origin="sample")
        first = measurement(value=1.0)
        store.add(first)
        with pytest.raises(InputError, match=r"top1 of a was measured before.*'search'"):
            store.add(measurement(value=2.0))
        with pytest.raises(InputError, match="measured before"):
            store.add_all([measurement("b"), measurement("b", value=3.0)])
        with pytest.raises(InputError, match="measured before"):
            store.add_all([measurement("b"), measurement("a")])
        assert store.measurements() == [first]
        assert store.find(*first.identity) == first

    @pytest.mark.parametrize(
        "other",
        [{"key": "b"}, {"quantity": "top5"}, {"context": "other"}, {"purpose": "confirm"}],
    )
    def test_every_part_of_the_identity_counts(self, store, other):
        store.propose([arch("a"), arch("b")], round=0, origin="sample")
        first, second = measurement(), measurement(**other)
        store.add(first)
        assert store.find(*second.identity) is None
        store.add(second)
        assert store.find(*first.identity) == first
        assert store.find(*second.identity) == second

    def test_measurements_are_chosen_by_what_is_given(self, store):
        store.propose([arch("b"), arch("a")], round=0, origin="sample")
        all_of_them = [
            measurement(key, quantity=quantity, purpose=purpose)
            for key in "ab"
            for quantity in ("top1", "latency")
            for purpose in ("search", "report")
        ]
        store.add_all(all_of_them)
        assert store.measurements() == all_of_them
        assert store.measurements("b") == all_of_them[4:]
        assert store.measurements(quantity="latency") == all_of_them[2:4] + all_of_them[6:]
        assert store.measurements(purpose="report") == all_of_them[1::2]
        assert store.measurements("a", "top1", "search") == all_of_them[:1]
        assert store.measurements(after=3) == all_of_them[3:]
        assert (
            store.measurements(quantity="latency", after=3) == all_of_them[3:4] + all_of_them[6:]
        )
        assert store.measurements(after=8) == []

    def test_what_was_added_can_be_read_without_raw_numbers(self, store):
        store.propose([arch("a")], round=0, origin="sample")
        assert store.n_measurements == 0
        store.add(measurement(samples=np.ones(3), details={"job": 1}))
        assert store.n_measurements == 1
        (found,) = store.measurements(samples=False)
        assert found == measurement(details={"job": 1})
        assert store.measurements()[0].samples.tolist() == [1.0, 1.0, 1.0]

    def test_what_is_handed_out_is_the_callers(self, store):
        mapping = {"depth": 2}
        (trial,) = store.propose([Arch("a", mapping)], round=0, origin="sample")
        samples, details = np.arange(3.0), {"list": [1]}
        kept = measurement(samples=samples, details=details)
        store.add(kept)
        mapping["depth"] = trial.choices["depth"] = store.trials()[0].choices["depth"] = 9
        samples[0] = 9
        details["list"].append(9)
        store.measurements()[0].details["list"].append(9)
        store.find(*kept.identity).details.clear()
        assert store.trial("a").choices == {"depth": 2}
        found = store.measurements()[0]
        assert found.samples.tolist() == [0, 1, 2]
        assert found.details == {"list": [1]}

    def test_a_changed_copy_is_another_measurement(self, store):
        store.propose([arch("a")], round=0, origin="sample")
        store.add(measurement(samples=np.arange(3)))
        found = store.measurements()[0]
        assert found != replace(found, samples=np.arange(4))
        assert found != replace(found, value=1.0)

    def test_closing_twice_is_no_error(self, store):
        store.close()
        store.close()
