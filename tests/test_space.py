"""Counting, sampling and variation of architectures, and spaces as JSON."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.stats import chisquare

from hwsearch.errors import InputError
from hwsearch.space import Architectures, Choice, SearchSpace
from tests.spaces import (
    FLAT,
    OFA,
    SEEDS,
    TINY,
    assert_valid,
    brute_force,
    checked_on_random_spaces,
    spaces,
    written,
)


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
