import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hwsearch.constraints import (
    Constraint,
    check_constraints,
    closest_to_feasible,
    satisfied,
    total_violation,
)
from hwsearch.errors import InputError
from hwsearch.objectives import (
    Objective,
    check_objectives,
    from_losses,
    hypervolume,
    is_non_dominated,
    to_losses,
)

TOP1 = Objective("top1", "max", unit="%")
LATENCY = Objective("latency", "min", unit="ms")
MACS = Objective("macs", "min", exact=lambda archs: np.zeros(len(archs)))


def test_an_objective_says_where_its_number_comes_from():
    assert (TOP1.source, MACS.source) == ("measured", "exact")
    assert (TOP1.unit, MACS.unit) == ("%", "")


def test_a_prediction_is_computed_and_says_what_it_is():
    latency = Objective("latency", "min", prediction=len)
    assert (latency.source, latency.exact, latency.computed) == ("predicted", None, len)
    with pytest.raises(InputError, match="'latency' is exact, so that nothing may predict it"):
        Objective("latency", "min", exact=len, prediction=len)


@pytest.mark.parametrize("name", ["", "top 1", "1top", "a<b", "a,b", 3])
def test_an_objective_name_is_one_word(name):
    with pytest.raises(InputError, match="not one word"):
        Objective(name, "max")


def test_a_wrong_direction_is_named_with_the_nearest():
    with pytest.raises(InputError, match=r"direction of objective top1 'maxi'.*mean 'max'"):
        Objective("top1", "maxi")


def test_check_objectives_keeps_the_order():
    assert check_objectives(iter([LATENCY, TOP1])) == (LATENCY, TOP1)


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ([], "0 objectives given"),
        ([Objective(f"o{i}", "min") for i in range(5)], "5 objectives given"),
        ([TOP1, LATENCY, Objective("top1", "min")], "'top1' is given twice"),
        (["top1"], r"write Objective\('top1', 'max'\)"),
    ],
)
def test_check_objectives_refuses(objectives, message):
    with pytest.raises(InputError, match=message):
        check_objectives(objectives)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency <= 12", Constraint("latency", "<=", 12)),
        ("macs<=400e6", Constraint("macs", "<=", 400e6)),
        ("  top1 >=74.5 ", Constraint("top1", ">=", 74.5)),
        ("gap < -1e-3", Constraint("gap", "<", -0.001)),
        ("latency@ort-cpu > .5", Constraint("latency@ort-cpu", ">", 0.5)),
    ],
)
def test_a_constraint_is_read_from_text(text, expected):
    assert Constraint.parse(text) == expected
    assert Constraint.parse(expected) is expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latency",
        "latency = 12",
        "latency == 12",
        "latency => 12",
        "latency <= ",
        "latency <= 12ms",
        "12 >= latency",
        "3 <= latency <= 12",
        "<= 12",
        "latency <= 12 or so",
    ],
)
def test_a_constraint_of_another_form_is_refused(text):
    with pytest.raises(InputError, match="not of the form NAME OPERATOR NUMBER"):
        Constraint.parse(text)


@pytest.mark.parametrize("bound", ["inf", "nan", "-inf", "1e999"])
def test_a_bound_is_finite(bound):
    with pytest.raises(InputError, match="not a finite number"):
        Constraint.parse(f"latency <= {bound}")


@pytest.mark.parametrize("arguments", [("a b", "<", 1), ("a", "==", 1), ("a", "<", float("nan"))])
def test_a_constraint_built_by_hand_is_checked(arguments):
    with pytest.raises(InputError):
        Constraint(*arguments)


@given(
    st.sampled_from(["<=", ">=", "<", ">"]),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_constraint_round_trips_through_text(op, bound):
    constraint = Constraint("macs", op, bound)
    assert Constraint.parse(str(constraint)) == constraint


def test_a_constraint_prints_whole_numbers_without_a_point():
    assert str(Constraint.parse("macs<=400e6")) == "macs <= 400000000"
    assert str(Constraint("latency", "<", 0.1)) == "latency < 0.1"


def test_violation_is_the_amount_missed():
    values = [11.5, 12.0, 14.0, np.nan, np.inf]
    assert Constraint.parse("x <= 12").violation(values).tolist() == [0, 0, 2, np.inf, np.inf]
    assert Constraint.parse("x >= 12").violation(values).tolist() == [0.5, 0, 0, np.inf, 0]
    assert Constraint.parse("x <= 12").violation(13).shape == ()


@pytest.mark.parametrize("bound", [12.0, 0.0, -3.0, 1e-300])
def test_a_strict_bound_itself_is_a_small_violation(bound):
    for op in ("<", ">"):
        missed = float(Constraint("x", op, bound).violation(bound))
        assert 0 < missed < 1e-14
    below, above = np.nextafter(bound, -np.inf), np.nextafter(bound, np.inf)
    assert Constraint("x", "<", bound).violation([below]) == 0
    assert Constraint("x", ">", bound).violation([above]) == 0


def test_check_constraints_parses_and_knows_the_names():
    found = check_constraints(["latency <= 12", Constraint("top1", ">", 70)], ["top1", "latency"])
    assert [str(constraint) for constraint in found] == ["latency <= 12", "top1 > 70"]
    assert check_constraints("top1 > 70", ["top1"]) == (Constraint("top1", ">", 70),)
    with pytest.raises(InputError, match=r"'latancy <= 12'.*known: top1, latency.*'latency'"):
        check_constraints(["latancy <= 12"], ["top1", "latency"])


@pytest.mark.parametrize(
    "pair", [("x <= 5", "x >= 8"), ("x < 5", "x >= 5"), ("x > 5", "x <= 5"), ("x > 5", "x < 5")]
)
def test_constraints_that_contradict_each_other_are_refused(pair):
    with pytest.raises(InputError, match="no number satisfies both"):
        check_constraints(pair, ["x"])


@pytest.mark.parametrize(
    "pair", [("x <= 5", "x >= 5"), ("x < 5", "x < 5"), ("x <= 8", "x > 5"), ("x > 8", "y < 5")]
)
def test_constraints_that_agree_are_accepted(pair):
    assert len(check_constraints(pair, ["x", "y"])) == 2


def test_losses_turn_only_what_is_maximised_and_turn_back():
    values = np.array([[80.0, 3.0], [np.nan, 0.0], [0.0, 7.0]])
    losses = to_losses(values, [TOP1, LATENCY])
    np.testing.assert_array_equal(losses, [[-80.0, 3.0], [np.nan, 0.0], [0.0, 7.0]])
    assert not np.signbit(losses[2, 0])
    np.testing.assert_array_equal(from_losses(losses, [TOP1, LATENCY]), values)
    losses[0, 0] = 1
    assert values[0, 0] == 80.0


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 3)])
def test_losses_need_one_column_for_each_objective(shape):
    with pytest.raises(InputError, match="does not hold 2 objectives"):
        to_losses(np.zeros(shape), [TOP1, LATENCY])


def dominates(a, b):
    return bool((a <= b).all() and (a < b).any())


@pytest.mark.parametrize("n_objectives", [1, 2, 3, 4])
def test_non_dominated_agrees_with_the_definition(n_objectives):
    rng = np.random.default_rng(n_objectives)
    for _ in range(20):
        losses = rng.integers(0, 5, (30, n_objectives)).astype(float)
        losses[rng.random(losses.shape) < 0.03] = np.nan
        losses[rng.random(losses.shape) < 0.03] = np.inf
        expected = [
            not np.isnan(row).any() and not any(dominates(other, row) for other in losses)
            for row in losses
        ]
        assert is_non_dominated(losses).tolist() == expected


def test_duplicates_stay_and_nan_rows_go():
    losses = [[1, 2], [1, 2], [2, 1], [2, 2], [np.nan, 0], [0.0, 9], [-0.0, 9]]
    assert is_non_dominated(losses).tolist() == [True, True, True, False, False, True, True]


def test_non_dominated_of_nothing():
    assert is_non_dominated(np.empty((0, 2))).tolist() == []
    assert is_non_dominated([[np.nan, 1.0]]).tolist() == [False]
    with pytest.raises(InputError, match=r"\(n, n_objectives\)"):
        is_non_dominated([1.0, 2.0])


def test_hypervolume_of_known_shapes():
    assert hypervolume([[1, 2], [2, 1]], [3, 3]) == pytest.approx(3.0)
    assert hypervolume([[1, 2], [2, 1], [2, 2], [np.nan, 0], [0, 3]], [3, 3]) == pytest.approx(3.0)
    assert hypervolume([[1.0]], [4.0]) == pytest.approx(3.0)
    assert hypervolume([[0.0] * 4, [0.5] * 4], [1.0] * 4) == pytest.approx(1.0)
    assert hypervolume(np.empty((0, 2)), [3, 3]) == 0.0
    assert hypervolume([[3, 0], [5, 5]], [3, 3]) == 0.0


def test_hypervolume_agrees_with_counting_unit_cells():
    rng = np.random.default_rng(0)
    losses = rng.integers(0, 6, (12, 3))
    cells = np.stack(np.meshgrid(*[np.arange(6)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    covered = (losses[None] <= cells[:, None]).all(axis=2).any(axis=1)
    assert hypervolume(losses, [6, 6, 6]) == pytest.approx(covered.sum())


@pytest.mark.parametrize("reference", [[3.0], [3.0, np.inf], [3.0, np.nan], 3.0])
def test_a_reference_point_is_finite_and_of_the_right_length(reference):
    with pytest.raises(InputError, match="2 finite numbers"):
        hypervolume([[1, 2]], reference)


LIMITS = [Constraint.parse("latency <= 2"), Constraint.parse("top1 >= 80")]
VALUES = {"latency": [1.0, 3.0, 1.0, np.nan], "top1": np.array([90.0, 90.0, 72.0, 90.0])}


def test_satisfied_needs_every_constraint():
    assert satisfied(VALUES, LIMITS).tolist() == [True, False, False, False]
    assert satisfied(VALUES, []).tolist() == [True] * 4


def test_total_violation_weighs_by_the_size_of_the_bounds():
    np.testing.assert_allclose(total_violation(VALUES, LIMITS), [0, 0.5, 0.1, np.inf])
    assert total_violation(VALUES, []).tolist() == [0.0] * 4
    assert total_violation({"x": [1.5]}, [Constraint("x", "<=", 0)]).tolist() == [1.5]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latency": [1.0], "top1": [1.0, 2.0]}, r"latency \(1,\), top1 \(2,\)"),
        ({}, "no names"),
        ({"latency": [1.0]}, "unknown name in constraint 'top1 >= 80'"),
    ],
)
def test_constraints_need_values(values, message):
    for function in (satisfied, total_violation):
        with pytest.raises(InputError, match=message):
            function(values, LIMITS)


def test_infeasible_text_names_what_came_closest():
    values = {"latency": [3.0, 2.5, 1.0, np.nan], "top1": [90.0, 88.0, 40.0, 99.0]}
    text = closest_to_feasible(LIMITS, values, keys=["aaa", "bbb", "ccc", "ddd"])
    assert "none of 4 evaluated architectures satisfies latency <= 2 and top1 >= 80" in text
    assert "closest (bbb) has latency 2.5 (0.5 too high), top1 88 (satisfied)" in text
    assert "latency <= 2 alone: 1 of 4, lowest seen 1" in text
    assert "top1 >= 80 alone: 3 of 4, highest seen 99" in text


def test_infeasible_text_says_what_is_too_low():
    text = closest_to_feasible(LIMITS[1:], {"top1": [70.0, 75.5]}, keys=["aaa", "bbb"])
    assert "The closest (bbb) has top1 75.5 (4.5 too low)" in text


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_infeasible_text_when_nothing_has_a_value(values):
    text = closest_to_feasible(LIMITS, {"latency": values, "top1": values}, keys="ab")
    assert f"none of {len(values)} evaluated architectures has a value for latency, top1" in text


def test_infeasible_text_is_refused_when_something_is_feasible():
    with pytest.raises(InputError, match="does satisfy"):
        closest_to_feasible(LIMITS, VALUES, keys="abcd")


def test_importing_loads_nothing_heavy():
    code = (
        "import sys, hwsearch.objectives, hwsearch.trials;"
        "print([m for m in ('moocore', 'pandas', 'torch', 'scipy', 'pymoo') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
