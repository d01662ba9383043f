import numpy as np
import pytest

from hwsearch.chains import ChainIndex
from hwsearch.encoding import thermometer
from hwsearch.errors import InputError
from hwsearch.lookup_tables import (
    LookupTable,
    LookupTableSum,
    block_tables,
    thermometer_tables,
)
from tests.chained import SPACE, blocks


@pytest.fixture(scope="module")
def index():
    return ChainIndex(SPACE, blocks)


def test_adds_up_the_blocks_of_every_architecture(index):
    archs = SPACE.enumerate(10_000)
    values = np.random.default_rng(0).random((len(index.specs), 2))
    sums = LookupTableSum(SPACE, block_tables(index, values))(archs)
    assert np.allclose(sums, index.counts(archs) @ values, rtol=1e-13)


def test_adds_up_whole_numbers_exactly(index):
    archs = SPACE.enumerate(10_000)
    sums = LookupTableSum(SPACE, block_tables(index, np.column_stack([index.macs, index.params])))
    expected = [
        [sum(b.macs for b in chain), sum(b.params for b in chain)] for chain in map(blocks, archs)
    ]
    assert sums(archs).tolist() == expected
    assert sums(archs[:0]).shape == (0, 2)


def test_adds_up_the_weighted_encoding_of_every_architecture():
    archs = SPACE.enumerate(10_000)
    encoded = thermometer(archs)
    weights = np.random.default_rng(1).normal(size=encoded.shape[1])
    sums = LookupTableSum(SPACE, thermometer_tables(SPACE, weights))(archs)
    assert np.allclose(sums[:, 0], encoded @ weights, rtol=1e-13, atol=1e-13)


def test_joins_tables_of_few_choices(index):
    tables = block_tables(index, np.ones((len(index.specs), 1)))
    joined = LookupTableSum(
        SPACE, [*tables, *thermometer_tables(SPACE, np.ones(17)), LookupTable((), np.ones(1))]
    )
    assert len(joined.tables) <= 2
    assert max(table.values.size for table in joined.tables) <= 4096


def test_more_architectures_than_fit_into_one_chunk(index):
    archs = SPACE.sample(20_000, 0)
    tables = block_tables(index, index.macs[:, np.newaxis].astype(float))
    sums = LookupTableSum(SPACE, tables)(archs)
    assert np.array_equal(sums[:, 0], index.counts(archs) @ index.macs)


def test_architectures_of_another_space_are_refused(index):
    total = LookupTableSum(SPACE, [LookupTable((), np.ones(1))])
    with pytest.raises(InputError, match="another space"):
        total(SPACE.restrict({"depth": [1]}).sample(2, 0))
