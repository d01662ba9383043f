"""From trials to a front, with what a device says differing between search and confirmation."""

import pytest
from hwsearch_test_plugin.scripted_device import latency_by_size

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.errors import DeviceError, EvaluationError, InfeasibleError, VerificationError

pytestmark = pytest.mark.usefixtures("quick_infer")


@pytest.fixture(scope="module")
def undisturbed(unbroken):
    """The front when confirmation repeats what the search measured."""
    return unbroken.front


def search(tmp_path, watcher=None, **settings):
    return hwsearch.search(**{**parts.SHORT, **settings}, out=tmp_path / "run", progress=watcher)


def test_what_turns_out_dominated_leaves(undisturbed, device, tmp_path):
    slow, limit = undisturbed["key"].iloc[0], undisturbed["latency"].max()

    def confirmed(name, path):
        return 2 * limit if name == slow else latency_by_size(name, path)

    device.scripts["confirm"] = confirmed
    run = search(tmp_path)
    assert run.front["key"].tolist() == undisturbed["key"].tolist()[1:]
    assert slow in {key for phase, key in device.timed if phase == "confirm"}
    assert not (run.folder / "subnets" / slow).exists()


def test_confirmed_latencies_are_what_the_front_states(undisturbed, device, tmp_path):
    device.scripts["confirm"] = lambda name, path: latency_by_size(name, path) * 1.25
    front = search(tmp_path).front
    assert front["key"].tolist() == undisturbed["key"].tolist()
    assert front["latency"].tolist() == pytest.approx((undisturbed["latency"] * 1.25).tolist())


def test_contenders_are_timed_together_and_once(undisturbed, device, tmp_path):
    search(tmp_path)
    confirmed = [key for phase, key in device.timed if phase == "confirm"]
    assert set(undisturbed["key"]) <= set(confirmed)
    assert len(confirmed) == len(set(confirmed))


def test_what_fails_when_confirmed_leaves_and_is_named(undisturbed, device, tmp_path):
    lost = undisturbed["key"].iloc[1]

    def confirmed(name, path):
        if name == lost:
            raise DeviceError("crashed with SIGSEGV")
        return latency_by_size(name, path)

    device.scripts["confirm"] = confirmed
    watcher = parts.Watcher()
    run = search(tmp_path, watcher)
    assert lost not in set(run.front["key"])
    assert watcher.notes[2:] == [f"{lost} leaves the front: crashed with SIGSEGV"]


def test_all_failing_when_confirmed_is_a_failure(device, tmp_path):
    def confirmed(name, path):
        raise DeviceError("crashed")

    device.scripts["confirm"] = confirmed
    with pytest.raises(EvaluationError, match="every contender for the front failed"):
        search(tmp_path, budget=4)
    assert not Run(tmp_path / "run").finished


def test_a_bound_has_to_hold_when_confirmed(undisturbed, device, tmp_path):
    limit = undisturbed["latency"].max()
    device.scripts["confirm"] = lambda name, path: latency_by_size(name, path) + limit
    with pytest.raises(InfeasibleError, match="latency <="):
        search(tmp_path, constraints=[f"latency <= {limit}"])
    assert len(Run(tmp_path / "run").trials) == 8


def test_what_fails_verification_is_named_and_left_out(undisturbed, device, tmp_path, monkeypatch):
    from hwsearch.run import finish

    verify, bad = finish.verify_export, undisturbed["key"].iloc[1]

    def failing(folder, exported, *rest):
        if exported.arch.key == bad:
            raise VerificationError("ONNX and PyTorch differ by 1 on real samples")
        return verify(folder, exported, *rest)

    monkeypatch.setattr(finish, "verify_export", failing)
    watcher = parts.Watcher()
    run = search(tmp_path, watcher)
    assert run.front["key"].tolist() == [key for key in undisturbed["key"] if key != bad]
    assert watcher.notes[2:] == [
        f"{bad} is not shipped: ONNX and PyTorch differ by 1 on real samples"
    ]
    assert {path.name for path in (run.folder / "subnets").iterdir()} == set(run.front["key"])


def test_nothing_verified_is_a_failure(device, tmp_path, monkeypatch):
    def failing(*args):
        raise VerificationError("no")

    monkeypatch.setattr("hwsearch.run.finish.verify_export", failing)
    with pytest.raises(VerificationError, match="no member of the front passed"):
        search(tmp_path, budget=4)
    run = Run(tmp_path / "run")
    assert not run.finished
    assert not list((run.folder / "subnets").glob("*"))
