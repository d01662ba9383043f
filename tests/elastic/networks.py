"""Elastic networks of small models, without statistics, for tests."""

import numpy as np

from hwsearch.elastic.input_specs import spec_of_arrays
from hwsearch.elastic.network import ElasticNetwork
from hwsearch.elastic.proposal import propose
from hwsearch.supernets.interface import Card
from tests.elastic.small_models import MODELS, samples

CARD = Card(name="small", description="A small model.", licence="none", source="random")


def orders_of(structure, seed=0):
    rng = np.random.default_rng(seed)
    return {group.name: rng.permutation(group.size) for group in structure.groups}


def losses_of(structure):
    """Losses that grow as units go, and are 0 for all of them."""
    return {
        group.name: np.linspace(1.0, 0.0, group.size + 1) ** 2 / (row + 1)
        for row, group in enumerate(structure.groups)
    }


def network(name="residual_cnn", **arguments):
    structure = MODELS[name]()
    given = {"orders": orders_of(structure), "losses": losses_of(structure), "card": CARD}
    given |= {"elastic": propose(structure)} | arguments
    spec = spec_of_arrays(structure.graph, [samples(structure, 2)])
    return ElasticNetwork(structure, spec=spec, **given)
