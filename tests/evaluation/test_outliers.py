"""What is too fast to be true is timed again in a fresh process."""

from hwsearch_test_plugin.scripted_device import FakeDevice

from hwsearch.evaluation.evaluator import SEARCH, Evaluator
from hwsearch.evaluation.measurements import LATENCY
from hwsearch.evaluation.outliers import Pace
from hwsearch.supernets.supernet import Supernet
from hwsearch.trial_store import Store
from tests.run.search_parts import network, task

MACS = {"a": 100, "b": 200, "c": 300, "d": 400, "e": 500}


def test_the_others_set_the_pace():
    pace = Pace()
    assert pace.suspects({name: n / 100 for name, n in MACS.items()}, MACS) == []
    assert (pace.highest, pace.known) == (100.0, 5)
    assert pace.suspects({"a": 0.9}, MACS) == []
    assert pace.suspects({"a": 0.5}, MACS) == ["a"]
    assert pace.highest < 112, "a suspect sets no pace"


def test_one_is_suspected_in_the_company_that_it_came_with():
    times = {name: n / 100 for name, n in MACS.items()}
    assert Pace().suspects(times | {"e": times["e"] / 2}, MACS) == ["e"]


def test_few_are_no_company():
    assert Pace().suspects({"a": 1.0, "b": 0.1}, MACS) == []


class Lucky(FakeDevice):
    """Times by MACs, but the named ones come out at a third of it in the first job they are in."""

    def __init__(self, macs, lucky):
        self.jobs = []
        self._macs, self._lucky = macs, lucky
        super().__init__(self._latency_of)

    def _latency_of(self, name, path):
        jobs = sum(name in job for job in self.jobs)
        third = 3 if name in self._lucky and jobs == 1 else 1
        return self._macs[name] / 1e5 / third

    def measure(self, models, *, seed, settings=None, progress=None):
        assert settings == SEARCH
        self.jobs.append(list(models))
        return super().measure(models, seed=seed, settings=settings, progress=progress)


def test_a_search_counts_the_second_time():
    net = Supernet("n", network(), "random:0")
    archs = list(net.space.sample_spread(6, seed=0))
    macs = {a.key: int(net.exact("macs", net.space.architectures([a]))[0]) for a in archs}
    lucky = archs[2].key
    device = Lucky(macs, {lucky})
    store = Store()
    store.propose(archs, 0, "sample")
    evaluator = Evaluator(net, device, task(net.input_spec(archs[0])), store)
    values = evaluator.search_values(archs, [LATENCY])
    first, (again, bridge) = device.jobs
    assert (first, again) == ([a.key for a in archs], lucky)
    assert bridge in set(first) - {lucky}
    assert values[lucky][LATENCY] == macs[lucky] / 1e5
    (stored,) = store.measurements(key=lucky)
    assert stored.details["job"] == 1
    assert stored.value == macs[lucky] / 1e5
    assert stored.details["suspected_ms"] == macs[lucky] / 1e5 / 3
    again = evaluator.search_values(archs, [LATENCY])
    assert again == values
    assert len(device.jobs) == 2, "what is known is not timed again"
