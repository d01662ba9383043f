import numpy as np
import pandas as pd
import pytest

from hwsearch.constraints import Constraint
from hwsearch.errors import InputError
from hwsearch.objectives import Objective
from hwsearch.run.front import contender_rows, front_rows, knee, select_keys

TOP1, LATENCY = Objective("top1", "max", unit="%"), Objective("latency", "min", unit="ms")
BOTH = (TOP1, LATENCY)


def table(**columns):
    return {name: np.array(values, dtype=float) for name, values in columns.items()}


def constraints(*texts):
    return [Constraint.parse(text) for text in texts]


class TestFrontRows:
    def test_keeps_what_nothing_dominates(self):
        values = table(top1=[70, 80, 75, 60], latency=[1.0, 3.0, 2.0, 1.5])
        assert front_rows(values, BOTH, []).tolist() == [0, 1, 2]

    def test_duplicates_all_stay(self):
        values = table(top1=[70, 70, 60], latency=[1.0, 1.0, 1.0])
        assert front_rows(values, BOTH, []).tolist() == [0, 1]

    def test_an_infeasible_row_dominates_nothing(self):
        values = table(top1=[90, 80, 70], latency=[3.0, 3.5, 4.0])
        assert front_rows(values, BOTH, constraints("top1 <= 85")).tolist() == [1]

    def test_may_be_empty(self):
        values = table(top1=[90.0], latency=[3.0])
        assert front_rows(values, BOTH, constraints("latency <= 1")).tolist() == []

    def test_a_constraint_may_name_what_is_no_objective(self):
        values = table(top1=[90, 80], latency=[3, 2], macs=[5e6, 4e6])
        assert front_rows(values, [TOP1], constraints("macs <= 4e6")).tolist() == [1]

    def test_one_objective_has_one_best(self):
        values = table(top1=[70, 90, 80])
        assert front_rows(values, [TOP1], []).tolist() == [1]


class TestContenderRows:
    def test_what_may_be_faster_than_it_looked_contends(self):
        values = table(top1=[80, 79, 79], latency=[1.0, 1.02, 1.5])
        low = table(latency=[0.97, 0.99, 1.45])
        assert contender_rows(values, low, BOTH, []).tolist() == [0, 1]

    def test_without_noise_it_is_the_front(self):
        rng = np.random.default_rng(3)
        values = table(top1=rng.random(40), latency=rng.random(40))
        contenders = contender_rows(values, {}, BOTH, []).tolist()
        assert contenders == front_rows(values, BOTH, []).tolist()

    def test_the_front_always_contends(self):
        rng = np.random.default_rng(4)
        values = table(top1=rng.random(40), latency=rng.random(40))
        low = {"latency": values["latency"] * 0.6}
        contenders = set(contender_rows(values, low, BOTH, []).tolist())
        assert set(front_rows(values, BOTH, []).tolist()) < contenders

    def test_a_bound_is_kept_at_the_good_end(self):
        values = table(top1=[80, 81, 82], latency=[0.9, 1.01, 1.2])
        low = table(latency=[0.88, 0.99, 1.15])
        found = contender_rows(values, low, BOTH, constraints("latency <= 1"))
        assert found.tolist() == [0, 1]

    def test_what_misses_a_bound_as_measured_pushes_nobody_out(self):
        values = table(top1=[80, 90], latency=[0.9, 1.01])
        low = table(latency=[0.9, 0.8])
        found = contender_rows(values, low, BOTH, constraints("latency <= 1"))
        assert found.tolist() == [0, 1]

    def test_nothing_feasible_gives_no_rows(self):
        values = table(top1=[80.0], latency=[2.0])
        found = contender_rows(values, values, BOTH, constraints("latency <= 1"))
        assert found.tolist() == []
        assert found.dtype == np.int64


def front(**columns):
    return pd.DataFrame(columns)


class TestKnee:
    def test_is_nearest_to_the_best_of_both(self):
        members = front(key=["a", "b", "c"], top1=[60.0, 88.0, 90.0], latency=[1.0, 1.5, 5.0])
        assert knee(members, BOTH) == "b"

    def test_does_not_depend_on_units(self):
        members = front(key=["a", "b", "c"], top1=[0.6, 0.88, 0.9], latency=[1e3, 1.5e3, 5e3])
        assert knee(members, BOTH) == "b"

    def test_of_one_member_is_that_one(self):
        assert knee(front(key=["a"], top1=[60.0], latency=[1.0]), BOTH) == "a"

    def test_of_one_objective_is_the_best(self):
        assert knee(front(key=["a", "b"], top1=[60.0, 61.0]), [TOP1]) == "b"


@pytest.fixture
def members():
    return front(
        key=["aa", "bb", "cc"],
        top1=[60.0, 88.0, 90.0],
        latency=[1.0, 1.5, 5.0],
        macs=[1e6, 2e6, 3e6],
        subnet=["subnets/aa", "subnets/bb", "subnets/cc"],
    )


class TestSelectKeys:
    @pytest.mark.parametrize(
        ("select", "expected"),
        [
            ("all", ["aa", "bb", "cc"]),
            ("knee", ["bb"]),
            ("cc", ["cc"]),
            ("latency <= 1.5", ["aa", "bb"]),
            ("latency<1.5", ["aa"]),
            ("top1 > 60", ["bb", "cc"]),
            ("macs >= 3e6", ["cc"]),
        ],
    )
    def test_selects(self, members, select, expected):
        assert select_keys(members, BOTH, select, None) == expected

    def test_an_unknown_word_is_refused_with_what_is_allowed(self, members):
        with pytest.raises(InputError, match="'best' is not 'all', 'knee', a key of the front"):
            select_keys(members, BOTH, "best", None)

    def test_an_unknown_column_is_refused_with_the_nearest(self, members):
        with pytest.raises(InputError, match="Did you mean 'latency'"):
            select_keys(members, BOTH, "latncy <= 2", None)

    def test_text_columns_cannot_be_compared(self, members):
        with pytest.raises(InputError, match="unknown name in constraint"):
            select_keys(members, BOTH, "subnet <= 2", None)

    def test_an_empty_selection_says_what_there_is(self, members):
        with pytest.raises(InputError, match="latency goes from 1 to 5"):
            select_keys(members, BOTH, "latency <= 0.5", None)


class TestSelectSurely:
    def select(self, members, text, objectives=BOTH):
        self.asked = []

        def chances(constraint):
            self.asked.append(constraint)
            return np.array([0.999, 0.96, 0.91])[-len(members) :]

        return select_keys(members, objectives, text, chances)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("latency <= 12 @ 90%", "cc"),
            ("latency <= 12 @ 95%", "bb"),
            ("latency <= 12 @ 96%", "bb"),
            ("latency<=12@99.5 %", "aa"),
        ],
    )
    def test_takes_the_best_that_is_sure(self, members, text, expected):
        assert self.select(members, text) == [expected]
        assert self.asked == constraints("latency <= 12")

    def test_the_best_is_that_of_the_first_objective(self, members):
        assert self.select(members, "top1 >= 50 @ 90%", (LATENCY, TOP1)) == ["aa"]

    def test_where_nothing_is_so_sure_it_says_what_is_reached(self, members):
        members = members[1:].reset_index(drop=True)
        with pytest.raises(InputError) as caught:
            self.select(members, "latency <= 12 @ 97%")
        assert str(caught.value) == (
            "no member of the front is 97% sure to satisfy 'latency <= 12'; the surest is bb "
            "with 96%"
        )

    @pytest.mark.parametrize(
        "level", ["0%", "100%", "101%", "-5%", "often", "0.95", "95", "", "%"]
    )
    def test_a_level_that_is_none_is_refused(self, members, level):
        with pytest.raises(InputError, match="above 0% and below 100%, as in 'latency <= 12 @"):
            self.select(members, f"latency <= 12 @ {level}")
        assert not self.asked

    def test_the_constraint_is_read_as_without(self, members):
        with pytest.raises(InputError, match="Did you mean 'latency'"):
            self.select(members, "latncy <= 2 @ 95%")
        with pytest.raises(InputError, match="NAME OPERATOR NUMBER"):
            self.select(members, "latency <= fast @ 95%")
