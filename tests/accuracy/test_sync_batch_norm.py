"""A batch in parts that meet at the norms, against the same batch as a whole."""

import threading

import numpy as np
import pytest
import torch
from torch import nn

from hwsearch.accuracy import sync_batch_norm
from hwsearch.accuracy.sync_batch_norm import (
    MICRO_BATCH,
    batch_statistics,
    channel_sums,
    merged,
    micro_batch_threads,
    micro_batches,
)

N = 2 * MICRO_BATCH + 3


def values(n=N, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy((3 * rng.standard_normal((n, 4, 6, 6)) + 50).astype(np.float32))


def network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
            nn.Conv2d(5, 3, 1), nn.BatchNorm2d(3), nn.Flatten(),
        ).eval()  # fmt: skip


def run_synchronised(module, parts, sums):
    with micro_batch_threads() as pool:
        return sync_batch_norm.SynchronisedRun(module, parts, sums).run(pool)


def adapted(module, *inputs):
    sums = {m: [] for m in module.modules() if isinstance(m, nn.BatchNorm2d)}
    output = run_synchronised(module, micro_batches(inputs), sums)
    return torch.cat(output), [batch_statistics(each) for each in sums.values() if each]


@pytest.mark.parametrize("n", [1, MICRO_BATCH, N])
def test_the_output_is_that_of_batch_norm_in_training(n):
    module, whole = network(), network().train()
    output, _ = adapted(module, values(n))
    with torch.no_grad():
        expected = whole.double()(values(n).double())
    torch.testing.assert_close(output, expected.float(), rtol=1e-4, atol=1e-4)


def test_the_number_of_cpus_changes_no_bit(monkeypatch):
    found = []
    for n_cpus in (1, 2, 7):
        monkeypatch.setattr(sync_batch_norm, "thread_limit", lambda n=n_cpus: n)
        output, statistics = adapted(network(), values())
        found.append([output, *(each for pair in statistics for each in pair)])
    for one, other in zip(found[0] * 2, found[1] + found[2], strict=True):
        assert torch.equal(one, other)


def test_no_more_parts_run_than_there_are_cpus(monkeypatch):
    monkeypatch.setattr(sync_batch_norm, "thread_limit", lambda: 2)
    lock, running, most = threading.Lock(), 0, 0

    class Counts(nn.Module):
        def forward(self, x):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            x = x * 1.0
            with lock:
                running -= 1
            return x

    module = nn.Sequential(Counts(), nn.BatchNorm2d(4), Counts()).eval()
    adapted(module, values(6 * MICRO_BATCH))
    assert 1 <= most <= 2


def test_a_norm_that_is_passed_twice_adds_up_both():
    norm = nn.BatchNorm2d(4)
    module = nn.Sequential(norm, nn.ReLU(), norm).eval()
    sums = {norm: []}
    output = torch.cat(run_synchronised(module, micro_batches([values()]), sums))
    assert [each.samples for each in sums[norm]] == [N, N]
    first = torch.nn.functional.batch_norm(values(), None, None, training=True)
    second = torch.nn.functional.batch_norm(torch.relu(first), None, None, training=True)
    torch.testing.assert_close(output, second, rtol=1e-4, atol=1e-4)


def test_parts_that_take_other_ways_meet_where_they_can():
    """Only samples that are large go through the first norm."""

    class Forked(nn.Module):
        def __init__(self):
            super().__init__()
            self.large, self.both = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            return self.both(self.large(x) if x.mean() > 0 else x)

    given = values()
    given[:MICRO_BATCH] -= 200
    module = Forked().eval()
    sums = {module.large: [], module.both: []}
    run_synchronised(module, micro_batches([given]), sums)
    assert [sum(b.samples for b in each) for each in sums.values()] == [N - MICRO_BATCH, N]
    mean, _ = batch_statistics(sums[module.large])
    torch.testing.assert_close(mean, given[MICRO_BATCH:].double().mean((0, 2, 3)))


def test_what_one_part_fails_by_is_raised_and_ends_the_others():
    class Dislikes(nn.Module):
        def forward(self, x):
            if x.min() < 0:
                raise ZeroDivisionError("no such layer")
            return x

    given = values()
    given[MICRO_BATCH + 1] = -1000
    module = nn.Sequential(Dislikes(), nn.BatchNorm2d(4)).eval()
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError, match="no such layer"):
        adapted(module, given)
    assert threading.active_count() == before
    assert not any(each._forward_pre_hooks for each in module)


def test_a_norm_that_cannot_be_set_fails_all_parts():
    module = nn.BatchNorm2d(4, track_running_stats=False).eval()
    with pytest.raises(AttributeError):
        adapted(module, values())


def test_torch_has_its_threads_back():
    torch.set_num_threads(2)
    try:
        adapted(network(), values())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_outputs_come_in_parts():
    class Pair(nn.Module):
        def forward(self, x, y):
            return x, y

    output = run_synchronised(Pair().eval(), micro_batches([values(), values(seed=1)]), {})
    assert [len(x) for x, _ in output] == [MICRO_BATCH, MICRO_BATCH, 3]
    assert torch.equal(torch.cat([y for _, y in output]), values(seed=1))


def test_parts_of_large_inputs_have_fewer_samples():
    parts = micro_batches([torch.zeros(40, 3, 224, 224)])
    assert [len(x) for (x,) in parts] == [MICRO_BATCH // 2, MICRO_BATCH // 2, 40 - MICRO_BATCH]


def test_sums_of_parts_are_those_of_the_whole():
    """Far from 0, where the mean square less the squared mean would be of no use."""
    x = values() + 1e3
    whole = merged([channel_sums(part) for part in x.split(5)])
    exact = x.double()
    assert (whole.samples, whole.count) == (N, N * 36)
    torch.testing.assert_close(whole.mean, exact.mean((0, 2, 3)), rtol=1e-7, atol=0)
    torch.testing.assert_close(whole.var, exact.var((0, 2, 3), correction=0), rtol=1e-5, atol=0)
