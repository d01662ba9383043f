import numpy as np
import pytest

from hwsearch.accuracy.racing import (
    FALSE_DROPS,
    LEAST_IMAGES,
    chance_if_better,
    find_rival,
    next_look,
    paired_estimate,
    race_order,
    schedule,
)
from hwsearch.objectives import Estimate

TOTAL = 500


def outcomes(rng, accuracies, total=TOTAL):
    """(total, n) outcomes that agree on most images: they differ in how hard they are."""
    hard = 3 * rng.standard_normal(total)
    limits = np.quantile(hard, accuracies)
    taste = 0.5 * rng.logistic(size=(total, len(limits)))
    return (limits - hard[:, None] + taste > 0).astype(float)


def with_sum(rng, column, wanted):
    """Turn as many outcomes around as it takes for a sum."""
    changed = column.copy()
    missing = int(wanted - column.sum())
    rows = np.flatnonzero(column == (missing < 0))
    changed[rng.choice(rows, abs(missing), replace=False)] = missing > 0
    return changed


def dropped_at(candidate, members, rival, order):
    """Images seen when the candidate is dropped; None where it is not."""
    means, total = members.mean(axis=0), len(candidate)
    for look in schedule(total):
        rows = order[: look.count]
        chance = chance_if_better(candidate[rows], members[rows], means, rival, total)
        if chance <= look.level:
            return look.count
    return None


def race(candidate, members, seed):
    order = np.random.default_rng(seed).permutation(len(candidate))
    return dropped_at(candidate, members, members.mean(axis=0).max(), order)


class TestSchedule:
    @pytest.mark.parametrize("total", [120, 500, 2500, 50_000])
    def test_spends_the_level_over_growing_looks(self, total):
        looks = schedule(total)
        counts = [look.count for look in looks]
        assert counts == sorted(set(counts))
        assert counts[0] >= LEAST_IMAGES
        assert counts[-1] < total
        assert sum(look.level for look in looks) == pytest.approx(FALSE_DROPS)
        assert all(look.level > 0 for look in looks)

    def test_few_images_are_not_raced_on(self):
        assert schedule(LEAST_IMAGES) == []


class TestOrder:
    LABELS = np.repeat([3, 1, 2], [500, 300, 200])

    def test_is_a_permutation_that_the_seed_decides(self):
        order = race_order(self.LABELS, 0)
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
        np.testing.assert_array_equal(order, race_order(self.LABELS, 0))
        assert (order != race_order(self.LABELS, 1)).any()

    @pytest.mark.parametrize("n", [50, 100, 350])
    def test_every_leading_part_holds_all_classes_in_proportion(self, n):
        part = self.LABELS[race_order(self.LABELS, 0)[:n]]
        shares = [np.mean(part == label) for label in (3, 1, 2)]
        assert shares == pytest.approx([0.5, 0.3, 0.2], abs=2 / n)

    def test_of_numbers_is_random(self):
        order = race_order(np.arange(1000) / 7, 0)
        assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1


class TestRival:
    # Losses: -top1, latency, macs.
    MEMBERS = np.array([[-70.0, 5.0, 9.0], [-74.0, 8.0, 3.0], [-78.0, 12.0, 9.0]])

    @pytest.mark.parametrize(
        ("latency", "macs", "rival"),
        [(4.9, 99, None), (5, 9, 0), (8, 3, 1), (8, 2.9, None), (11.9, 9, 1), (12, 9, 2)],
    )
    def test_is_the_best_of_those_that_are_no_worse_elsewhere(self, latency, macs, rival):
        hopeful = np.array([np.nan, latency, macs])
        assert find_rival(hopeful, self.MEMBERS, 0) == rival

    def test_of_a_single_objective_is_the_best(self):
        assert find_rival(np.array([np.nan]), self.MEMBERS[:, :1], 0) == 2


class TestLevel:
    """Candidates that tie with their rival once all images are seen: the hardest to keep."""

    @pytest.mark.parametrize("accuracy", [0.1, 0.75, 0.97])
    @pytest.mark.parametrize("n_members", [1, 8])
    def test_holds_for_correlated_outcomes(self, accuracy, n_members):
        rng = np.random.default_rng(0)
        n_dropped = 0
        for number in range(600):
            if number % 20 == 0:
                everyone = outcomes(rng, [accuracy] * (n_members + 1))
                members = everyone[:, 1:]
                candidate = with_sum(rng, everyone[:, 0], members.sum(axis=0).max())
            n_dropped += race(candidate, members, number) is not None
        # 3 are expected at most; 9 or more would come by chance once in 260 times.
        assert n_dropped < 9

    def test_holds_for_real_numbers(self):
        rng = np.random.default_rng(1)
        n_dropped = 0
        for number in range(600):
            if number % 20 == 0:
                hard = rng.standard_normal((TOTAL, 1))
                everyone = hard + 0.5 * rng.standard_t(5, size=(TOTAL, 5))
                members = everyone[:, 1:]
                gap = members.mean(axis=0).max() - everyone[:, 0].mean()
                candidate = everyone[:, 0] + gap
            n_dropped += race(candidate, members, number) is not None
        assert n_dropped < 9


class TestPower:
    def test_clearly_dominated_ones_go_at_the_first_looks(self):
        rng = np.random.default_rng(0)
        everyone = outcomes(rng, [0.5, 0.8, 0.82, 0.85], 2500)
        counts = [race(everyone[:, 0], everyone[:, 1:], seed) for seed in range(20)]
        assert max(counts) <= 250

    def test_better_ones_stay(self):
        rng = np.random.default_rng(0)
        everyone = outcomes(rng, [0.82, 0.8, 0.79, 0.7], 2500)
        assert {race(everyone[:, 0], everyone[:, 1:], seed) for seed in range(50)} == {None}

    def test_a_twin_stays(self):
        members = outcomes(np.random.default_rng(0), [0.8, 0.7])
        best = members[:, np.argmax(members.mean(axis=0))]
        assert {race(best, members, seed) for seed in range(50)} == {None}

    def test_pairing_sees_what_means_do_not(self):
        """0.85 and 0.80 on 250 images overlap, but one is never right where the other is not."""
        rng = np.random.default_rng(0)
        rival = (np.arange(2500) < 2125).astype(float)
        candidate = rival * (np.arange(2500) % 17 > 0)
        order = rng.permutation(2500)
        assert dropped_at(candidate, rival[:, None], 0.85, order) <= 500
        shuffled = rng.permutation(candidate)
        assert dropped_at(shuffled, rival[:, None], 0.85, order) > 500


class TestNextLook:
    LOOKS = schedule(2500)

    def next_count(self, behind, deviation=0.02):
        look = next_look(self.LOOKS, 125, Estimate(0.8 - behind, deviation), 0.8, 2500)
        return None if look is None else look.count

    def test_leaves_out_what_decides_nothing(self):
        assert self.next_count(0.09) == 250
        assert 250 < self.next_count(0.0) < 2500
        assert self.next_count(-0.06) is None

    def test_comes_later_the_closer_it_is(self):
        counts = [self.next_count(behind) or 2500 for behind in np.linspace(0.1, -0.06, 30)]
        assert counts == sorted(counts)

    def test_is_never_one_of_those_before(self):
        estimate, seen = Estimate(0.1, 0.01), [look.count for look in self.LOOKS]
        found = [next_look(self.LOOKS, count, estimate, 0.8, 2500) for count in seen]
        assert [look and look.count for look in found] == [*seen[1:], None]


class TestEstimate:
    def test_is_unbiased_and_as_precise_as_it_says(self):
        rng = np.random.default_rng(0)
        everyone = outcomes(rng, [0.72, 0.75, 0.78, 0.8], 1000)
        candidate, members = everyone[:, 0], everyone[:, 1:]
        errors, deviations = [], []
        for _ in range(300):
            rows = rng.permutation(1000)[:200]
            found = paired_estimate(candidate[rows], members[rows], members.mean(axis=0), 1000)
            errors.append(found.value - candidate.mean())
            deviations.append(found.deviation)
        assert abs(np.mean(errors)) < 0.004
        assert np.std(errors) == pytest.approx(np.mean(deviations), rel=0.15)
        alone = np.sqrt(0.72 * 0.28 / 200 * (1 - 200 / 1000))
        assert np.mean(deviations) < 0.8 * alone

    def test_equal_outcomes_leave_a_doubt(self):
        twin = np.ones(60)
        found = paired_estimate(twin, np.ones((60, 2)), np.array([0.9, 0.9]), 100)
        assert found.value == pytest.approx(0.9)
        assert found.deviation == pytest.approx(np.sqrt(1 / 60 / 60 * 0.4))

    def test_more_members_than_images_do_no_harm(self):
        rng = np.random.default_rng(0)
        everyone = outcomes(rng, [0.8] * 90)
        rows = rng.permutation(TOTAL)[:50]
        members = everyone[:, 1:]
        found = paired_estimate(everyone[rows, 0], members[rows], members.mean(axis=0), TOTAL)
        assert abs(found.value - everyone[:, 0].mean()) < 4 * found.deviation
