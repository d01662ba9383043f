import itertools
import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import chisquare

from hwsearch.encoding import column_counts, onehot, thermometer, thermometer_columns
from hwsearch.errors import InputError
from hwsearch.space import Architecture, Architectures, Choice, SearchSpace

TINY = SearchSpace(
    [
        Choice("depth", (1, 2, 3)),
        Choice("width", (16, 32), active=("depth", (2, 3))),
        Choice("kernel", (3, 5, 7), active=("width", (32,))),
        Choice("act", ("relu", "swish")),
    ]
)  # 1 + 2 * (1 + 3) = 9 ways for the first three, times 2
FLAT = SearchSpace([Choice(f"c{i}", tuple(range(2 + i % 4))) for i in range(30)])


def ofa_mobilenetv3():
    choices = []
    for stage, block in itertools.product(range(1, 6), range(5)):
        depth = f"stage{stage}.depth"
        if block == 0:
            choices.append(Choice(depth, (2, 3, 4)))
            continue
        active = None if block <= 2 else (depth, tuple(range(block, 5)))
        choices.append(Choice(f"stage{stage}.block{block}.kernel", (3, 5, 7), active))
        choices.append(Choice(f"stage{stage}.block{block}.expand", (3, 4, 6), active))
    return SearchSpace(choices)


OFA = ofa_mobilenetv3()


OPTIONS = st.one_of(
    st.lists(st.integers(-9, 9), min_size=1, max_size=3, unique=True).map(sorted),
    st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=3, unique=True),
    st.lists(st.text(max_size=3), min_size=1, max_size=3, unique=True),
    st.permutations([False, True]),
)


@st.composite
def spaces(draw):
    """Random forests of one to six choices with up to three options each."""
    choices = []
    for position in range(draw(st.integers(1, 6))):
        active = None
        if choices and draw(st.booleans()):
            parent = draw(st.sampled_from(choices))
            chosen = st.lists(st.sampled_from(parent.options), min_size=1, unique=True)
            active = (parent.name, tuple(draw(chosen)))
        choices.append(Choice(f"c{position}", tuple(draw(OPTIONS)), active))
    return SearchSpace(choices)


SEEDS = st.integers(0, 2**32 - 1)
checked_on_random_spaces = settings(
    max_examples=100, deadline=None, derandomize=True, database=None
)


def brute_force(space):
    """Every distinct architecture as a tuple of (name, repr of option), by the definition."""
    distinct = set()
    for options in itertools.product(*(choice.options for choice in space.choices)):
        kept = {}
        for choice, option in zip(space.choices, options, strict=True):
            if choice.active is None or kept.get(choice.active[0], ...) in choice.active[1]:
                kept[choice.name] = option
        distinct.add(tuple((name, repr(option)) for name, option in kept.items()))
    return distinct


def written(archs):
    return [tuple((name, repr(option)) for name, option in arch.items()) for arch in archs]


def assert_valid(archs):
    assert archs.indices.dtype == np.int64
    assert archs.active.dtype == np.bool_
    again = archs.space.from_indices(archs.indices)
    np.testing.assert_array_equal(again.indices, archs.indices)
    np.testing.assert_array_equal(again.active, archs.active)


class TestChoice:
    @pytest.mark.parametrize(
        ("options", "ordered"),
        [
            ((1, 2, 3), True),
            ((0.25, 1), True),
            ((4,), True),
            ((3, 1), False),
            ((False, True), False),
            (("a", "b"), False),
            ((1, "2"), False),
        ],
    )
    def test_ordered_means_increasing_numbers(self, options, ordered):
        assert Choice("c", options).ordered is ordered

    def test_options_become_plain_python_values(self):
        choice = Choice("c", np.array([1, 2]), active=["p", [np.float64(0.5)]])
        assert choice == Choice("c", (1, 2), active=("p", (0.5,)))
        assert [type(o) for o in (*choice.options, *choice.active[1])] == [int, int, float]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("", (1,)), "choice name ''"),
            (("a=b", (1,)), "without '='"),
            (("a\nb", (1,)), "printable"),
            ((3, (1,)), "choice name 3"),
            (("c", ()), "choice 'c': there are no options"),
            (("c", "abc"), "the options are 'abc'"),
            (("c", 5), "the options are 5"),
            (("c", (1, 1.0)), "not distinct"),
            (("c", (1, True)), "not distinct"),
            (("c", (1.0, math.nan)), "nan is not finite"),
            (("c", (None,)), "option None is not a plain"),
            (("c", ((1, 2),)), r"option \(1, 2\) is not a plain"),
            (("c", (1,), ("p", ())), "condition on 'p': there are no options"),
            (("c", (1,), "p"), "active is 'p'"),
            (("c", (1,), ("p", (1,), 2)), "active is"),
        ],
    )
    def test_refuses(self, arguments, message):
        with pytest.raises(InputError, match=message):
            Choice(*arguments)


class TestDeclaring:
    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ([], "at least one choice"),
            ([Choice("a", (1,)), Choice("a", (2,))], "two choices are named 'a'"),
            (
                [Choice("depth", (1,)), Choice("b", (1,), ("dept", (1,)))],
                "unknown parent of choice 'b' 'dept'; known: .* Did you mean 'depth'",
            ),
            (
                [Choice("b", (1,), ("a", (1,))), Choice("a", (1,))],
                "'b' does not come after its parent 'a'",
            ),
            ([Choice("a", (1,), ("a", (1,)))], "does not come after its parent"),
            (
                [Choice("a", (1, 2)), Choice("b", (1,), ("a", (2, 3)))],
                "unknown option of choice 'a' 3; known: 1, 2",
            ),
        ],
    )
    def test_refuses(self, choices, message):
        with pytest.raises(InputError, match=message):
            SearchSpace(choices)

    def test_equality_and_digest_see_names_options_types_conditions_and_order(self):
        a, b = Choice("a", (1, 2)), Choice("b", (1, 2), ("a", (2,)))
        space = SearchSpace([a, b])
        assert space == SearchSpace([a, b])
        assert hash(space) == hash(SearchSpace([a, b]))
        free = replace(b, active=None)
        others = [
            SearchSpace([a]),
            SearchSpace([a, replace(b, name="c")]),
            SearchSpace([a, replace(b, options=(1, 2.0))]),
            SearchSpace([a, replace(b, active=("a", (1,)))]),
            SearchSpace([a, free]),
            SearchSpace([free, a]),
        ]
        assert len({space.digest, *(other.digest for other in others)}) == 7
        assert space not in others
        assert space != "space"

    def test_repr_names_what_matters(self):
        assert repr(TINY) == "SearchSpace(4 choices, 18 architectures)"
        assert repr(OFA) == "SearchSpace(45 choices, 2.18e+19 architectures)"
        assert repr(TINY.smallest()) == f"Architectures(1 of {TINY!r})"

    def test_import_stays_light(self):
        code = (
            "import sys, hwsearch.space\n"
            "heavy = {'pandas', 'scipy', 'sklearn', 'pymoo', 'torch', 'onnx'}\n"
            "print(heavy & set(sys.modules))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=False
        )
        assert (done.stdout, done.stderr) == ("set()\n", "")


class TestCounting:
    def test_ofa_mobilenetv3_is_counted_exactly(self):
        assert len(OFA.choices) == 45
        assert OFA.size == (9**2 + 9**3 + 9**4) ** 5 == 21_758_655_492_572_485_851

    def test_a_count_beyond_floats_is_exact_and_can_be_sampled(self):
        space = SearchSpace([Choice(f"c{i}", tuple(range(10))) for i in range(400)])
        assert space.size == 10**400
        assert repr(space) == "SearchSpace(400 choices, 1.00e+400 architectures)"
        assert space.sample(3, seed=0).indices.max() == 9

    @checked_on_random_spaces
    @given(spaces())
    def test_size_and_enumeration_equal_brute_force(self, space):
        everything = space.enumerate(space.size)
        expected = brute_force(space)
        assert space.size == len(expected)
        assert Counter(written(everything)) == Counter(expected)
        assert len(set(everything.ids)) == space.size
        assert_valid(everything)

    def test_enumeration_is_lexicographic(self):
        rows = TINY.enumerate(18).indices.tolist()
        assert rows == sorted(rows)

    def test_enumerate_refuses_more_than_its_limit(self):
        assert len(TINY.enumerate(18)) == 18
        with pytest.raises(InputError, match="18 architectures, more than the limit of 17"):
            TINY.enumerate(17)
        with pytest.raises(InputError, match=r"2\.18e\+19"):
            OFA.enumerate(10**6)


class TestCanonicalForm:
    @checked_on_random_spaces
    @given(spaces(), SEEDS)
    def test_it_depends_on_active_choices_only_and_is_idempotent(self, space, seed):
        rng = np.random.default_rng(seed)
        n_options = [len(choice.options) for choice in space.choices]
        archs = space.from_indices(rng.integers(n_options, size=(20, len(n_options))))
        other = rng.integers(n_options, size=archs.indices.shape)
        same = space.from_indices(np.where(archs.active, archs.indices, other))
        assert same == archs
        assert same.ids == archs.ids
        assert not archs.indices[~archs.active].any()
        assert_valid(archs)
        assert set(written(archs)) <= brute_force(space)

    def test_child_of_an_inactive_parent_is_inactive(self):
        arch = TINY.architectures({"depth": 1, "width": 32, "kernel": 7, "act": "relu"})[0]
        assert arch.mapping == {"depth": 1, "act": "relu"}

    @checked_on_random_spaces
    @given(spaces(), SEEDS)
    def test_mappings_round_trip(self, space, seed):
        archs = space.sample(10, seed)
        assert space.architectures(arch.mapping for arch in archs) == archs
        assert space.architectures(list(archs)) == archs

    @pytest.mark.parametrize(
        ("mapping", "message"),
        [
            ({"dpth": 1, "act": "relu"}, "unknown choice 'dpth'; known: .*Did you mean 'depth'"),
            ({"depth": 4, "act": "relu"}, "unknown option of choice 'depth' 4; known: 1, 2, 3"),
            ({"depth": True, "act": "relu"}, "unknown option of choice 'depth' True"),
            ({"depth": 1, "act": "rely"}, "choice 'act' 'rely'; .* Did you mean 'relu'"),
            ({"depth": 1, "act": ["relu"]}, "unknown option of choice 'act'"),
            ({"depth": 1}, "choice 'act' is not given, but active .*; its options: 'relu', 'swi"),
            ({"depth": 2, "act": "relu"}, r"'width' is not given, but active \(depth is 2 or 3\)"),
            ({"depth": 1, "act": "relu", "width": 17}, "unknown option of choice 'width' 17"),
        ],
    )
    def test_mappings_out_of_the_space_are_refused(self, mapping, message):
        good = {"depth": 1, "act": "swish"}
        with pytest.raises(InputError, match=message):
            TINY.architectures([good, mapping])

    def test_what_is_no_mapping_is_refused(self):
        with pytest.raises(InputError, match="'depth' is no mapping"):
            TINY.architectures(["depth"])

    def test_options_are_found_by_value(self):
        archs = TINY.architectures({"depth": 1.0, "act": np.str_("swish")})
        assert archs.indices.tolist() == [[0, 0, 0, 1]]
        flags = SearchSpace([Choice("flag", (False, True))])
        assert flags.architectures({"flag": np.True_})[0].mapping == {"flag": True}
        with pytest.raises(InputError, match="unknown option of choice 'flag' 1"):
            flags.architectures({"flag": 1})

    @pytest.mark.parametrize(
        ("indices", "message"),
        [
            ([[0, 0, 0]], r"shape \(1, 3\); give integers of shape \(n, 4\)"),
            ([0, 0, 0, 0], r"shape \(4,\)"),
            ([[0.0, 0, 0, 0]], "type float64"),
            ([[False] * 4], "type bool"),
            ([[0] * 4, [0, 0, 3, 0]], "index 3 in row 1 is out of range: choice 'kernel' has 3"),
            ([[-1, 0, 0, 0]], "index -1 in row 0"),
        ],
    )
    def test_indices_out_of_the_space_are_refused(self, indices, message):
        with pytest.raises(InputError, match=message):
            TINY.from_indices(indices)

    def test_no_architectures_are_a_batch_too(self):
        for empty in (TINY.architectures([]), TINY.sample(0, 0), TINY.smallest()[[]]):
            assert len(empty) == 0
            assert empty.ids == []
            assert len(empty.unique()) == 0
            assert onehot(empty).shape == (0, 3 + 2 + 3 + 2)
            assert len(TINY.mutate(empty, np.random.default_rng(0))) == 0


class TestKeys:
    def test_keys_never_change(self):
        archs = TINY.architectures(
            [{"depth": 1, "act": "relu"}, {"depth": 3, "width": 32, "kernel": 7, "act": "swish"}]
        )
        assert archs.ids == ["7ebc0cfabe98fa9c", "468bb38d97f451a3"]
        odd = SearchSpace([Choice("é", (0.1,)), Choice("a.b", ("ü",)), Choice("a", (True,))])
        assert odd.smallest().ids == ["a405c9b23755d8a5"]

    def test_order_of_choices_and_unused_options_do_not_matter(self):
        moved = SearchSpace([TINY.choices[3], *TINY.choices[:3]])
        wider = SearchSpace([Choice("act", ("gelu", "relu", "swish")), *TINY.choices[:3]])
        for arch in TINY.enumerate(18):
            assert moved.architectures(arch).ids == [arch.key]
            assert wider.architectures(arch).ids == [arch.key]

    @checked_on_random_spaces
    @given(spaces(), SEEDS)
    def test_ids_are_the_keys(self, space, seed):
        archs = space.sample(10, seed)
        assert archs.ids == [arch.key for arch in archs]
        assert all(len(key) == 16 and int(key, 16) >= 0 for key in archs.ids)


class TestSampling:
    @pytest.mark.parametrize("space", [TINY, SearchSpace(TINY.choices[:3])])
    def test_every_distinct_architecture_is_equally_likely(self, space):
        counts = Counter(space.sample(20_000, seed=0).ids)
        assert len(counts) == space.size
        assert chisquare(list(counts.values())).pvalue > 0.001

    @pytest.mark.parametrize("n", [2, 9])  # drawn until new, and picked from all
    def test_distinct_ones_are_equally_likely_too(self, n):
        rng = np.random.default_rng(0)
        counts = Counter(key for _ in range(1500) for key in TINY.sample_distinct(n, rng).ids)
        assert len(counts) == TINY.size
        assert chisquare(list(counts.values())).pvalue > 0.001

    @checked_on_random_spaces
    @given(spaces(), SEEDS, st.integers(0, 30), st.integers(0, 10))
    def test_distinct_ones_are_distinct_and_as_many_as_there_are(self, space, seed, n, n_out):
        out = space.sample(n_out, seed)
        archs = space.sample_distinct(n, seed, exclude=out)
        left = space.size - len(set(out.ids))
        assert len(set(archs.ids)) == len(archs) == min(n, left)
        assert not set(archs.ids) & set(out.ids)
        assert_valid(archs)

    def test_distinct_ones_of_a_large_space(self):
        out = OFA.sample(500, seed=1)
        archs = OFA.sample_distinct(500, seed=1, exclude=out)
        assert len(set(archs.ids) - set(out.ids)) == 500

    def test_the_seed_decides_and_a_generator_moves_on(self):
        for draw in (OFA.sample, OFA.sample_distinct, OFA.sample_spread):
            assert draw(9, seed=7) == draw(9, seed=7)
            assert draw(9, seed=7) == draw(9, seed=np.random.default_rng(7))
            assert draw(9, seed=7) != draw(9, seed=8)
            rng = np.random.default_rng(7)
            assert draw(9, seed=rng) != draw(9, seed=rng)

    def test_a_negative_number_is_refused(self):
        for draw in (TINY.sample, TINY.sample_distinct):
            with pytest.raises(InputError, match="cannot draw -1"):
                draw(-1, seed=0)


class TestSpread:
    @checked_on_random_spaces
    @given(spaces(), SEEDS, st.integers(1, 20))
    def test_it_goes_from_the_smallest_to_the_largest_without_repeats(self, space, seed, n):
        archs = space.sample_spread(n, seed)
        assert len(set(archs.ids)) == len(archs) == min(n, space.size)
        assert archs[:1] == space.smallest()
        if n > 1:
            assert archs[-1:] == space.largest()
        assert_valid(archs)

    @pytest.mark.parametrize("seed", range(5))
    def test_size_climbs_in_even_steps_and_choices_keep_together(self, seed):
        archs = FLAT.sample_spread(9, seed)
        last = np.array([len(choice.options) - 1 for choice in FLAT.choices])
        target = np.linspace(0, 1, 9)
        positions = archs.indices / last
        np.testing.assert_allclose(positions.mean(axis=1), target, atol=0.05)
        assert (np.abs(archs.indices - target[:, np.newaxis] * last) < 1).all()

    def test_unordered_choices_are_not_taken_for_sizes(self):
        names = [Choice(f"c{i}", ("a", "b", "c")) for i in range(20)]
        between = SearchSpace(names).sample_spread(12, seed=0)[1:-1]
        assert all(set(row) == {0, 1, 2} for row in between.indices.tolist())

    def test_none_is_refused(self):
        with pytest.raises(InputError, match="cannot spread 0"):
            TINY.sample_spread(0, seed=0)

    def test_ends_have_the_first_and_last_options(self):
        assert OFA.smallest()[0]["stage3.depth"] == 2
        assert set(OFA.smallest()[0].values()) == {2, 3}
        assert set(OFA.largest()[0].values()) == {4, 7, 6}
        assert len(OFA.smallest()[0]) == 25
        assert len(OFA.largest()[0]) == 45


class TestVariation:
    @checked_on_random_spaces
    @given(spaces(), SEEDS, st.sampled_from([None, 0.0, 0.3, 1.0]))
    def test_mutants_are_valid_and_differ(self, space, seed, rate):
        rng = np.random.default_rng(seed)
        archs = space.sample(20, rng)
        mutants = space.mutate(archs, rng, rate)
        assert_valid(mutants)
        same = [old == new for old, new in zip(archs.ids, mutants.ids, strict=True)]
        assert not any(same) if space.size > 1 else all(same)

    def test_mutation_changes_about_one_choice_and_reaches_new_ones_evenly(self):
        archs = FLAT.sample(2000, seed=0)
        changes = (FLAT.mutate(archs, np.random.default_rng(0)).indices != archs.indices).sum(1)
        assert changes.min() == 1
        assert 1.2 < changes.mean() < 1.6  # 1 expected by chance, and at least 1: 1 + 1/e
        shallow = TINY.architectures([{"depth": 1, "act": "relu"}] * 4000)
        mutants = TINY.mutate(shallow, np.random.default_rng(0))
        deeper = mutants[mutants.active[:, 1]]
        counts = Counter(tuple(row) for row in deeper.indices[:, 1:3].tolist())
        assert len(counts) == 4
        assert chisquare(list(counts.values())).pvalue > 0.001

    def test_rate_is_the_share_of_active_choices_that_change(self):
        archs = FLAT.sample(2000, seed=0)
        for rate in (0.2, 1.0):
            mutants = FLAT.mutate(archs, np.random.default_rng(0), rate=rate)
            share = (mutants.indices != archs.indices).mean()
            assert share == pytest.approx(rate, abs=0.02)

    @checked_on_random_spaces
    @given(spaces(), SEEDS)
    def test_children_take_every_choice_from_a_parent_that_has_it(self, space, seed):
        rng = np.random.default_rng(seed)
        a, b = space.sample(20, rng), space.sample(20, rng)
        children = space.crossover(a, b, rng)
        assert_valid(children)
        from_a = a.active & (children.indices == a.indices)
        from_b = b.active & (children.indices == b.indices)
        assert (from_a | from_b)[children.active].all()
        assert space.crossover(a, a, rng) == a

    def test_both_parents_give_half(self):
        a, b = FLAT.smallest(), FLAT.largest()
        children = FLAT.crossover(a[[0] * 500], b[[0] * 500], np.random.default_rng(0))
        assert (children.indices > 0).mean(axis=0) == pytest.approx(0.5, abs=0.1)

    def test_wrong_arguments_are_refused(self):
        rng = np.random.default_rng(0)
        archs = TINY.sample(3, rng)
        with pytest.raises(InputError, match="cannot cross 3 architectures with 2"):
            TINY.crossover(archs, archs[:2], rng)
        for rate in (-0.1, 1.1, math.nan):
            with pytest.raises(InputError, match=r"mutation rate .* out of range"):
                TINY.mutate(archs, rng, rate)
        for refuse in (
            lambda: OFA.mutate(archs, rng),
            lambda: OFA.crossover(archs, archs, rng),
            lambda: OFA.sample_distinct(3, rng, exclude=archs),
            lambda: OFA.sample(3, rng).unique(archs),
            lambda: Architectures.concatenate([OFA.smallest(), archs]),
        ):
            with pytest.raises(InputError, match="belong to another space"):
                refuse()


class TestEncoding:
    @checked_on_random_spaces
    @given(spaces())
    def test_onehot_can_be_read_back(self, space):
        archs = space.enumerate(space.size)
        names = [f"{c.name}={option!r}" for c in space.choices for option in c.options]
        encoded = onehot(archs)
        assert encoded.shape == (len(archs), len(names))
        for arch, row in zip(archs, encoded, strict=True):
            ones = {name for name, value in zip(names, row, strict=True) if value == 1.0}
            assert ones == {f"{name}={option!r}" for name, option in arch.items()}
            assert np.count_nonzero(row) == len(ones)

    @checked_on_random_spaces
    @given(spaces())
    def test_thermometer_rows_are_distinct_and_count_steps(self, space):
        archs = space.enumerate(space.size)
        encoded, columns = thermometer(archs), thermometer_columns(space)
        assert encoded.shape == (len(archs), sum(column_counts(space)))
        assert len(np.unique(encoded, axis=0)) == len(archs)
        for position, choice in enumerate(space.choices):
            own = columns.choice == position
            assert own.sum() == column_counts(space)[position]
            reached = archs.indices[:, position] + (choice.active is not None)
            expected = reached if choice.ordered else 1
            assert (encoded[:, own].sum(axis=1) == expected * archs.active[:, position]).all()

    def test_thermometer_by_hand(self):
        archs = TINY.architectures(
            [
                {"depth": 1, "act": "relu"},
                {"depth": 2, "width": 16, "act": "swish"},
                {"depth": 3, "width": 32, "kernel": 5, "act": "relu"},
            ]
        )
        assert thermometer(archs).tolist() == [
            [0, 0, 0, 0, 0, 0, 0, 1, 0],
            [1, 0, 1, 0, 0, 0, 0, 0, 1],
            [1, 1, 1, 1, 1, 1, 0, 1, 0],
        ]
        assert thermometer_columns(TINY).ordered.tolist() == [True] * 7 + [False] * 2


class TestJson:
    @checked_on_random_spaces
    @given(spaces())
    def test_round_trip_is_exact(self, space):
        again = SearchSpace.from_json(space.to_json())
        assert again == space
        assert again.digest == space.digest
        assert [[repr(o) for o in c.options] for c in again.choices] == [
            [repr(o) for o in c.options] for c in space.choices
        ]
        assert again.choices == space.choices
        assert again.enumerate(again.size).ids == space.enumerate(space.size).ids

    def test_it_is_plain_json(self):
        first, second = json.loads(TINY.to_json())["choices"][:2]
        assert first == {"name": "depth", "options": [1, 2, 3]}
        assert second == {"name": "width", "options": [16, 32], "active": ["depth", [2, 3]]}

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{}",
            "[]",
            "3",
            '{"choices": 3}',
            '{"choices": ["a"]}',
            '{"choices": [{"name": "a"}]}',
            '{"choices": [{"name": "a", "options": [1], "colour": 2}]}',
        ],
    )
    def test_anything_else_is_refused(self, text):
        with pytest.raises(InputError, match="not the JSON of a search space"):
            SearchSpace.from_json(text)


class TestBatch:
    def test_indexing(self):
        archs = TINY.sample(10, seed=0)
        assert len(archs) == 10
        assert [arch.key for arch in archs] == archs.ids
        assert archs[-1].key == archs[np.int64(9)].key == archs.ids[9]
        assert archs[2:5].ids == archs.ids[2:5]
        assert archs[[7, 1, 1]].ids == [archs.ids[i] for i in (7, 1, 1)]
        deep = archs.active[:, 1]
        assert archs[deep].ids == [i for i, d in zip(archs.ids, deep, strict=True) if d]
        with pytest.raises(IndexError):
            archs[10]

    def test_unique_keeps_first_occurrences_in_order(self):
        archs = TINY.sample(100, seed=0)
        unique = archs.unique()
        assert unique.ids == list(dict.fromkeys(archs.ids))
        rest = archs.unique(exclude=archs[:5])
        assert rest.ids == [key for key in unique.ids if key not in archs.ids[:5]]

    def test_concatenate(self):
        a, b = TINY.sample(3, seed=0), TINY.sample(2, seed=1)
        joined = Architectures.concatenate([a, b])
        assert joined.ids == a.ids + b.ids
        assert_valid(joined)
        with pytest.raises(InputError, match="nothing to concatenate"):
            Architectures.concatenate([])

    def test_equality_is_by_content(self):
        archs = TINY.sample(5, seed=0)
        assert archs == SearchSpace(TINY.choices).architectures(list(archs))
        assert archs != archs[::-1]
        assert archs != archs[:4]
        assert TINY.smallest() != SearchSpace(FLAT.choices[:4]).smallest()
        assert archs != archs.ids

    def test_arrays_cannot_be_changed(self):
        archs = TINY.sample(5, seed=0)
        for array in (archs.indices, archs.active, archs[1:].indices):
            with pytest.raises(ValueError, match="read-only"):
                array[0, 0] = 1

    def test_the_caller_keeps_his_array(self):
        mine = np.zeros((2, 4), dtype=np.int64)
        archs = TINY.from_indices(mine)
        mine[0, 0] = 2
        assert archs[0]["depth"] == 1


class TestArchitecture:
    ARCH = TINY.architectures({"depth": 2, "width": 16, "act": "relu"})[0]

    def test_it_is_a_mapping_of_its_active_choices(self):
        assert isinstance(self.ARCH, Architecture)
        assert self.ARCH["width"] == 16
        assert list(self.ARCH) == ["depth", "width", "act"]
        assert self.ARCH == {"depth": 2, "width": 16, "act": "relu"} == self.ARCH.mapping
        assert "kernel" not in self.ARCH
        assert self.ARCH.get("kernel") is None
        assert [type(option) for option in self.ARCH.values()] == [int, int, str]
        assert json.loads(json.dumps(self.ARCH.mapping)) == self.ARCH.mapping

    def test_absent_choices_say_why(self):
        with pytest.raises(KeyError, match=r"'kernel' is inactive here: .* where width is 32"):
            self.ARCH["kernel"]
        with pytest.raises(KeyError, match=r"unknown choice 'kernle'; .* mean 'kernel'"):
            self.ARCH["kernle"]

    def test_equality_and_hash_are_by_key(self):
        same = SearchSpace(TINY.choices).architectures(self.ARCH)[0]
        assert {self.ARCH, same} == {self.ARCH}
        assert TINY.smallest()[0] != self.ARCH
        ints, floats = (SearchSpace([Choice("a", (o,))]).smallest()[0] for o in (1, 1.0))
        assert ints != floats

    def test_repr_shows_key_and_options(self):
        assert repr(self.ARCH).startswith(f"Architecture({self.ARCH.key}: {{'depth': 2,")
