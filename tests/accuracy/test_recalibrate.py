"""Batch statistics against a computation that knows nothing of hooks."""

import numpy as np
import pytest
import torch
from torch import nn

from hwsearch.accuracy.recalibrate import recalibrate
from hwsearch.accuracy.sync_batch_norm import channel_sums
from hwsearch.errors import EvaluationError

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@pytest.fixture
def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
            nn.Conv2d(6, 4, 3, bias=False), nn.BatchNorm2d(4, momentum=0.3), nn.Flatten(),
        )  # fmt: skip
        nn.init.normal_(net[1].weight)
        nn.init.normal_(net[1].bias)
    return net


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    scales = [1.0, 3.0, 0.2]
    return [
        {"image": (scale * rng.standard_normal((n, 3, 8, 8)) + i).astype(np.float32)}
        for i, (n, scale) in enumerate(zip((5, 5, 2), scales, strict=True))
    ]


def convolved(x, conv):
    """A convolution in NumPy, in float64: (n, in, h, w) -> (n, out, h - 2, w - 2)."""
    weight = conv.weight.detach().numpy().astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
    y = np.einsum("nchwij,ocij->nohw", windows, weight)
    bias = 0 if conv.bias is None else conv.bias.detach().numpy()[:, None, None]
    return y + bias


def expected_statistics(network, batches):
    """Mean of batch means and biased variances weighted by batch size, norm by norm."""
    conv1, norm1, _, conv2, _norm2, _ = network
    sums = [np.zeros((2, 6)), np.zeros((2, 4))]
    for batch in batches:
        x = batch["image"].astype(np.float64)
        y = convolved(x, conv1)
        mean, var = y.mean(axis=(0, 2, 3)), y.var(axis=(0, 2, 3))
        sums[0] += len(x) * np.stack([mean, var])
        scale = norm1.weight.detach().numpy()[:, None, None]
        shift = norm1.bias.detach().numpy()[:, None, None]
        normalised = (y - mean[:, None, None]) / np.sqrt(var[:, None, None] + norm1.eps)
        z = convolved(np.maximum(normalised * scale + shift, 0), conv2)
        sums[1] += len(x) * np.stack([z.mean(axis=(0, 2, 3)), z.var(axis=(0, 2, 3))])
    samples = sum(len(batch["image"]) for batch in batches)
    return [each / samples for each in sums]


def test_equal_to_a_direct_computation(network, batches):
    first, second = expected_statistics(network, batches)
    recalibrate(network, NORMS, iter(batches))
    for norm, (mean, var) in ((network[1], first), (network[4], second)):
        np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.running_var, var, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_many_values_lose_no_precision(layout):
    """Half a million values per channel, summed up one by one in single precision, would."""
    values = np.random.default_rng(0).standard_normal((60, 4, 96, 96), np.float32) * 1.5 + 0.7
    sums = channel_sums(torch.from_numpy(values).contiguous(memory_format=layout))
    exact = values.astype(np.float64)
    np.testing.assert_allclose(sums.mean, exact.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(sums.var, exact.var(axis=(0, 2, 3)), rtol=1e-6)


def test_uneven_batches_are_weighted(network, batches):
    """The small last batch has other statistics: a plain mean over batches would differ."""
    first, _ = expected_statistics(network, batches)
    x = [convolved(batch["image"].astype(np.float64), network[0]) for batch in batches]
    unweighted = np.mean([y.var(axis=(0, 2, 3)) for y in x], axis=0)
    assert np.abs(unweighted - first[1]).max() > 0.05 * first[1].max()
    recalibrate(network, NORMS, iter(batches))
    np.testing.assert_allclose(network[1].running_var, first[1], rtol=1e-4)


def test_flags_momentum_and_weights_are_as_before(network, batches):
    network.train()
    weights = {name: p.clone() for name, p in network.named_parameters()}
    assert recalibrate(network, NORMS, iter(batches)) is network
    assert [network[1].momentum, network[4].momentum] == [0.1, 0.3]
    assert not any(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())
    assert all(torch.equal(p, weights[name]) for name, p in network.named_parameters())
    assert all(p.grad is None for p in network.parameters())


def test_what_was_there_before_does_not_matter(network, batches):
    recalibrate(network, NORMS, iter(batches))
    first = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network[1].running_mean.fill_(7)
    network[4].running_var.fill_(float("nan"))
    recalibrate(network, NORMS, iter(batches))
    for name, buffer in network.named_buffers():
        assert "num_batches" in name or torch.equal(buffer, first[name]), name


def test_only_the_named_types_are_touched(batches):
    network = nn.Sequential(nn.BatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True))
    recalibrate(network, (nn.BatchNorm2d,), iter(batches))
    assert network[0].running_mean.abs().max() > 0
    assert network[1].running_mean.abs().max() == 0


def test_nothing_to_recalibrate_runs_nothing(network, batches):
    def never():
        raise AssertionError("asked for a batch")
        yield

    recalibrate(network, (), never())
    recalibrate(nn.Sequential(nn.Linear(2, 2)), NORMS, never())
    assert not network.training


def test_norm_of_plain_features():
    rng = np.random.default_rng(1)
    x = (4 + 2 * rng.standard_normal((50, 3))).astype(np.float32)
    network = nn.Sequential(nn.BatchNorm1d(3))
    recalibrate(network, NORMS, iter([{"x": x[:40]}, {"x": x[40:]}]))
    mean = (40 * x[:40].mean(axis=0) + 10 * x[40:].mean(axis=0)) / 50
    var = (40 * x[:40].var(axis=0) + 10 * x[40:].var(axis=0)) / 50
    np.testing.assert_allclose(network[0].running_mean, mean, rtol=1e-5)
    np.testing.assert_allclose(network[0].running_var, var, rtol=1e-5)


def test_inputs_are_passed_in_their_order():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, first, second):
            return self.norm(first - second)

    network, ones = Two(), np.ones((3, 2), np.float32)
    recalibrate(network, NORMS, iter([{"a": 5 * ones, "b": 2 * ones}]))
    np.testing.assert_allclose(network.norm.running_mean, [3, 3])


def test_no_batches(network):
    with pytest.raises(EvaluationError, match="at least one batch"):
        recalibrate(network, NORMS, iter([]))


def test_statistics_that_are_not_finite(network, batches):
    batches[1]["image"][0, 0, 0, 0] = np.inf
    with pytest.raises(EvaluationError, match="not finite"):
        recalibrate(network, NORMS, iter(batches))


def test_flags_are_restored_after_an_error(network, batches):
    with pytest.raises(RuntimeError):
        recalibrate(network, NORMS, iter([batches[0], {"image": np.ones((1, 5), np.float32)}]))
    assert [network[1].momentum, network[4].momentum] == [0.1, 0.3]
    assert not any(module.training for module in network.modules())
    assert not any(module._forward_pre_hooks for module in network.modules())
