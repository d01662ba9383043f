"""Architectures, single and in batches, their canonical form and keys."""

import json

import numpy as np
import pytest
from hypothesis import given

from hwsearch.encoding import onehot
from hwsearch.errors import InputError
from hwsearch.space import Architecture, Architectures, Choice, SearchSpace
from tests.spaces import (
    FLAT,
    SEEDS,
    TINY,
    assert_valid,
    brute_force,
    checked_on_random_spaces,
    spaces,
    written,
)


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
