import numpy as np
import pytest

from hwsearch.chains import ChainIndex
from hwsearch.errors import InputError
from hwsearch.prediction.lookup_tables import LookupSum, Term, block_terms, step_terms
from hwsearch.prediction.steps import encode_steps
from tests.chained import SPACE, blocks


@pytest.fixture(scope="module")
def index():
    return ChainIndex(SPACE, blocks)


def test_adds_up_the_blocks_of_every_architecture(index):
    archs = SPACE.enumerate(10_000)
    values = np.random.default_rng(0).random((len(index.specs), 2))
    sums = LookupSum(SPACE, block_terms(index, values))(archs)
    assert np.allclose(sums, index.counts(archs) @ values, rtol=1e-13)


def test_adds_up_the_weighted_encoding_of_every_architecture():
    archs = SPACE.enumerate(10_000)
    encoded = encode_steps(archs)
    weights = np.random.default_rng(1).normal(size=encoded.shape[1])
    sums = LookupSum(SPACE, step_terms(SPACE, weights))(archs)
    assert np.allclose(sums[:, 0], encoded @ weights, rtol=1e-13, atol=1e-13)


def test_joins_terms_of_few_choices(index):
    terms = block_terms(index, np.ones((len(index.specs), 1)))
    joined = LookupSum(SPACE, [*terms, *step_terms(SPACE, np.ones(17)), Term((), np.ones(1))])
    assert len(joined.terms) <= 2
    assert max(term.values.size for term in joined.terms) <= 4096


def test_more_architectures_than_fit_into_one_chunk(index):
    archs = SPACE.sample(20_000, 0)
    sums = LookupSum(SPACE, block_terms(index, index.macs[:, np.newaxis].astype(float)))(archs)
    assert np.array_equal(sums[:, 0], index.counts(archs) @ index.macs)


def test_architectures_of_another_space_are_refused(index):
    total = LookupSum(SPACE, [Term((), np.ones(1))])
    with pytest.raises(InputError, match="another space"):
        total(SPACE.restrict({"depth": [1]}).sample(2, 0))
