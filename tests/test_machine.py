"""Limits of containers, read from trees of files as kernels lay them out."""

import os

import pytest

from hwsearch import machine
from hwsearch.devices.fingerprint import cpu_fingerprint
from hwsearch.devices.worker_device import quota_warnings

GB = 1 << 30
UNLIMITED_V1 = 9223372036854771712


def tree(root, own="0::/\n", meminfo=32 * GB, **files):
    """Write a tree; names have ``/`` as ``__``, below /sys/fs/cgroup."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    if meminfo:
        text = (
            f"MemTotal: {2 * meminfo >> 10} kB\nMemFree: 1 kB\nMemAvailable: {meminfo >> 10} kB\n"
        )
        (root / "proc/meminfo").write_text(text)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("-comma-", ",")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


@pytest.fixture
def eight_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("line", "expected"),
    [("flags\t\t: fpu avx2", {"fpu", "avx2"}), ("Features\t: asimd sve", {"asimd", "sve"})],
)
def test_instructions_are_those_that_the_system_lists(tmp_path, line, expected):
    assert machine.cpu_instructions(tmp_path) == frozenset()
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor\t: 0\nmodel name\t: X\n{line}\n")
    assert machine.cpu_instructions(tmp_path) == expected


class TestMemory:
    def test_no_limit_is_what_the_system_has(self, tmp_path):
        root = tree(tmp_path, **{"memory.max": "max", "memory.high": "max"})
        assert machine.available_memory_bytes(root) == 32 * GB
        assert machine.memory_limit_bytes(root) is None

    def test_version_2_what_is_used_counts_and_cached_files_do_not(self, tmp_path):
        files = {"memory.max": 4 * GB, "memory.current": 3 * GB}
        root = tree(tmp_path, **files, **{"memory.stat": f"anon 7\ninactive_file {GB}"})
        assert machine.available_memory_bytes(root) == 2 * GB
        assert machine.memory_limit_bytes(root) == 4 * GB

    def test_the_soft_limit_of_version_2_counts(self, tmp_path):
        root = tree(tmp_path, **{"memory.max": 4 * GB, "memory.high": GB})
        assert machine.available_memory_bytes(root) == GB

    @pytest.mark.parametrize("tightest", ["", "pods__", "pods__one__", "pods__one__main__"])
    def test_the_tightest_of_nested_groups_holds(self, tmp_path, tightest):
        folders = ["", "pods__", "pods__one__", "pods__one__main__"]
        files = {f"{folder}memory.max": "max" for folder in folders}
        files[f"{tightest}memory.max"] = 2 * GB
        root = tree(tmp_path, "0::/pods/one/main\n", **files)
        assert machine.available_memory_bytes(root) == 2 * GB

    def test_other_groups_hold_nothing(self, tmp_path):
        files = {"pods__one__memory.max": "max", "pods__two__memory.max": GB}
        root = tree(tmp_path, "0::/pods/one\n", **files)
        assert machine.available_memory_bytes(root) == 32 * GB

    @pytest.mark.parametrize("own", ["/docker/1234", "/", "/../../outside"])
    def test_a_container_sees_its_own_group_as_the_top(self, tmp_path, own):
        root = tree(tmp_path, f"0::{own}\n", **{"memory.max": 2 * GB})
        assert machine.available_memory_bytes(root) == 2 * GB

    def test_version_1(self, tmp_path):
        own = "11:cpu,cpuacct:/docker/12\n4:memory:/docker/12\n1:name=systemd:/docker/12\n0::/\n"
        files = {
            "memory__memory.limit_in_bytes": UNLIMITED_V1,
            "memory__docker__12__memory.limit_in_bytes": 3 * GB,
            "memory__docker__12__memory.usage_in_bytes": 2 * GB,
            "memory__docker__12__memory.stat": f"inactive_file 1\ntotal_inactive_file {GB}",
        }
        root = tree(tmp_path, own, **files)
        assert machine.available_memory_bytes(root) == 2 * GB
        assert machine.memory_limit_bytes(root) == 3 * GB

    def test_version_1_tells_limits_of_ancestors_that_are_not_visible(self, tmp_path):
        files = {
            "memory__memory.limit_in_bytes": UNLIMITED_V1,
            "memory__memory.stat": f"hierarchical_memory_limit {GB}",
        }
        root = tree(tmp_path, "4:memory:/elsewhere\n", **files)
        assert machine.available_memory_bytes(root) == GB

    def test_the_huge_number_of_version_1_is_no_limit(self, tmp_path):
        files = {"memory__memory.limit_in_bytes": UNLIMITED_V1}
        root = tree(tmp_path, "4:memory:/\n", meminfo=0, **files)
        assert machine.memory_limit_bytes(root) is None
        assert machine.available_memory_bytes(root) < 1 << 50  # the machine's own

    def test_more_than_the_machine_has_is_no_limit(self, tmp_path):
        root = tree(tmp_path, **{"memory.max": 100 * GB})
        assert machine.memory_limit_bytes(root) is None
        assert machine.available_memory_bytes(root) == 32 * GB

    def test_used_up_is_none_left(self, tmp_path):
        root = tree(tmp_path, **{"memory.max": GB, "memory.current": GB + 4096})
        assert machine.available_memory_bytes(root) == 0

    @pytest.mark.parametrize("content", ["", "max", "-1", "lots", "1.5e9", "\x00\x01"])
    def test_what_is_no_number_is_no_limit(self, tmp_path, content):
        files = {"memory.max": content, "memory.current": content, "memory.stat": content}
        root = tree(tmp_path, content, **files)
        assert machine.available_memory_bytes(root) == 32 * GB

    def test_without_any_file_there_is_still_a_number(self, tmp_path):
        assert machine.available_memory_bytes(tmp_path) > 0
        assert machine.memory_limit_bytes(tmp_path) is None


@pytest.mark.usefixtures("eight_cpus")
class TestCpus:
    def test_no_limit(self, tmp_path):
        root = tree(tmp_path, **{"cpu.max": "max 100000", "cpuset.cpus.effective": "0-63"})
        assert machine.usable_cpus(root) == list(range(8))
        assert machine.cpu_quota(root) is None
        assert machine.quota_text(root) is None
        assert machine.thread_limit(root) == 8

    @pytest.mark.parametrize(
        ("content", "quota", "threads", "text"),
        [
            ("150000 100000", 1.5, 2, "1.5 CPUs"),
            ("50000 100000", 0.5, 1, "0.5 CPUs"),
            ("200000", 2.0, 2, "2 CPUs"),
            ("10000 10000", 1.0, 1, "1 CPU"),
            ("6400000 100000", 64.0, 8, "64 CPUs"),
        ],
    )
    def test_version_2_quota(self, tmp_path, content, quota, threads, text):
        root = tree(tmp_path, **{"cpu.max": content})
        assert machine.cpu_quota(root) == quota
        assert machine.thread_limit(root) == threads
        assert machine.quota_text(root) == text

    def test_the_tightest_of_nested_groups_holds(self, tmp_path):
        files = {"a__cpu.max": "300000 100000", "a__b__cpu.max": "max 100000"}
        files["a__b__c__cpu.max"] = "800000 100000"
        assert machine.cpu_quota(tree(tmp_path, "0::/a/b/c\n", **files)) == 3.0

    @pytest.mark.parametrize("folder", ["cpu", "cpu-comma-cpuacct", "cpuacct-comma-cpu"])
    def test_version_1_quota(self, tmp_path, folder):
        files = {
            f"{folder}__cpu.cfs_quota_us": -1,
            f"{folder}__cpu.cfs_period_us": 100000,
            f"{folder}__lxc__a__cpu.cfs_quota_us": 250000,
            f"{folder}__lxc__a__cpu.cfs_period_us": 100000,
        }
        root = tree(tmp_path, "5:cpuacct,cpu:/lxc/a\n", **files)
        assert machine.cpu_quota(root) == 2.5
        assert machine.thread_limit(root) == 3

    def test_the_set_of_cpus_holds_where_affinity_does_not_know_it(self, tmp_path):
        root = tree(tmp_path, "0::/a\n", **{"a__cpuset.cpus.effective": "1-2,5"})
        assert machine.usable_cpus(root) == [1, 2, 5]
        assert machine.thread_limit(root) == 3

    def test_the_set_of_cpus_of_version_1(self, tmp_path):
        files = {"cpuset__a__cpuset.cpus": "0-1", "cpuset__cpuset.cpus": "0-63"}
        assert machine.usable_cpus(tree(tmp_path, "3:cpuset:/a\n", **files)) == [0, 1]

    def test_affinity_counts(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3}, raising=False)
        root = tree(tmp_path, **{"cpu.max": "400000 100000"})
        assert machine.usable_cpus(root) == [3]
        assert machine.thread_limit(root) == 1

    @pytest.mark.parametrize("content", ["", "x-y", "9-12", "3-1"])
    def test_a_set_that_says_nothing_leaves_affinity(self, tmp_path, content):
        root = tree(tmp_path, **{"cpuset.cpus.effective": content})
        assert machine.usable_cpus(root) == list(range(8))

    @pytest.mark.parametrize("content", ["", "max", "-1", "much 100000", "0 100000"])
    def test_what_is_no_number_is_no_quota(self, tmp_path, content):
        root = tree(tmp_path, **{"cpu.max": content, "cpu__cpu.cfs_quota_us": content})
        assert machine.cpu_quota(root) is None

    def test_throttled_periods_of_all_groups_with_a_quota(self, tmp_path):
        files = {
            "cpu.stat": "nr_throttled 100",
            "a__cpu.max": "100000 100000",
            "a__cpu.stat": "nr_periods 9\nnr_throttled 4\nthrottled_usec 5",
            "a__b__cpu.max": "100000 100000",
            "a__b__cpu.stat": "nr_throttled 3",
        }
        assert machine.throttled_periods(tree(tmp_path, "0::/a/b\n", **files)) == 7

    def test_without_any_file_all_cpus_are_usable(self, tmp_path):
        assert machine.usable_cpus(tmp_path) == list(range(8))
        assert machine.cpu_quota(tmp_path) is None
        assert machine.throttled_periods(tmp_path) == 0


def test_where_the_system_has_no_affinity(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert machine.usable_cpus(tmp_path) == [0, 1, 2, 3]


@pytest.mark.usefixtures("eight_cpus")
class TestQuotaIsNamed:
    @pytest.fixture(autouse=True)
    def _quota(self, tmp_path, monkeypatch):
        root = tree(tmp_path, **{"cpu.max": "150000 100000"})
        for name in ("quota_text", "cpu_quota"):
            whole = getattr(machine, name)
            for module in ("hwsearch.devices.fingerprint", "hwsearch.devices.worker_device"):
                found = lambda whole=whole: whole(root)  # noqa: E731
                monkeypatch.setattr(f"{module}.{name}", found, raising=False)

    def test_in_the_fingerprint(self, monkeypatch):
        assert cpu_fingerprint()["cpu quota"] == "1.5 CPUs"
        monkeypatch.setattr("hwsearch.devices.fingerprint.quota_text", lambda: None)
        assert "cpu quota" not in cpu_fingerprint()

    def test_in_a_warning_where_it_is_felt(self):
        assert quota_warnings(1, 0) == ()
        (warning,) = quota_warnings(2, 0)
        assert "may use 1.5 CPUs and is throttled while 2 threads ran" in warning
        (warning,) = quota_warnings(1, 12)
        assert "was throttled in 12 periods while 1 thread ran" in warning
