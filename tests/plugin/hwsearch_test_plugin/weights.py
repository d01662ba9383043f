"""Weights of both supernets: seeded ones, or those of a checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hwsearch.supernets.checkpoints import match_state, read_state, seed_of
from hwsearch.supernets.interface import Card


def seeded_state(build: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build()
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def load_state(
    build: Callable[[], nn.Module], checkpoint: str | None, name: str
) -> Mapping[str, Tensor]:
    """Seed 0 is what ships."""
    expected = seeded_state(build, seed_of(checkpoint) or 0)
    if checkpoint is None or seed_of(checkpoint) is not None:
        return expected
    path = Path(checkpoint)
    return match_state(read_state(path), expected, path, name)


def card(name: str, checkpoint: str | None) -> Card:
    return Card(
        name=name,
        description="A supernet for tests.",
        licence="Apache-2.0",
        source=checkpoint or "random:0",
    )
