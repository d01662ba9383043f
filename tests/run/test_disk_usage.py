"""What lies on the disk: what of it can go, and that nothing else ever does."""

import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from hwsearch.files import staged_folder, write_atomic
from hwsearch.run import disk_usage
from hwsearch.run.disk_usage import disk_usage_of, remove_leftovers, runs_below, size_of
from hwsearch.run.lock import locked

KEY = "0123456789abcdef"
KEPT = (
    "config.toml", "trials.sqlite", "trials.sqlite-wal", "front.csv", "front.png", "SHA256SUMS",
    "known.csv", "kit.pyz", ".notes.txt", ".config.yaml_old",
    f"subnets/{KEY}/model.onnx", f"subnets/{KEY}/weights.safetensors",
)  # fmt: skip
HOME_KEPT = (
    "supernets/mine/weights.safetensors",
    "elastic/mine-0123456789abcdef.elastic/model.onnx",
    "latency_tables/mine.json",
    "notes.txt",
)
CACHE_KEPT = ("baselines/ort-cpu-1.json", "other/file", "file.txt")


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A run, a cache and the user's data, each with everything that has to stay."""
    for variable, name in (("CACHE", "cache"), ("HOME", "home")):
        monkeypatch.setenv(f"HWSEARCH_{variable}", str(tmp_path / name))
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    for folder, names in (("runs/a", KEPT), ("home", HOME_KEPT), ("cache", CACHE_KEPT)):
        for name in names:
            write(tmp_path / folder / name)
    return tmp_path


def write(path, size=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def age(path, hours):
    then = time.time() - 3600 * hours
    for each in [path, *(path.rglob("*") if path.is_dir() else ())]:
        os.utime(each, (then, then), follow_symlinks=False)
    return path


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def kept(folder):
    """Names of what has to stay, and of nothing else."""
    names = [(f"runs/a/{name}" for name in KEPT), (f"home/{name}" for name in HOME_KEPT)]
    return {each for part in (*names, (f"cache/{name}" for name in CACHE_KEPT)) for each in part}


def killed_while(writing, monkeypatch, *args):
    """Leave behind what a process leaves that is killed at its last step."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dies)
        patch.setattr(Path, "rename", dies)
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(Killed):
            writing(*args)


class Killed(BaseException):
    pass


def dies(*_):
    raise Killed


def stage(final):
    with staged_folder(final) as folder:
        write(folder / "model.onnx")


class TestWhatCanGo:
    def test_of_a_disk_without_leftovers_nothing(self, disk):
        assert [place.leftovers for place in disk_usage_of([disk / "runs/a"])] == [()] * 4

    def test_what_a_killed_process_was_writing(self, disk, monkeypatch):
        run = disk / "runs" / "a"
        for path in (run / "config.toml", run / "SHA256SUMS", run / f"subnets/{KEY}/card.json"):
            killed_while(write_atomic, monkeypatch, path, "half")
        killed_while(stage, monkeypatch, run / "subnets" / "fedcba9876543210")
        killed_while(stage, monkeypatch, disk / "home/supernets/mine")
        killed_while(stage, monkeypatch, disk / "home/elastic/other-0123.elastic")
        write(disk / "home/elastic/.third-0123.elastic.unfinished/part.npz")
        age(disk, hours=2)
        places = disk_usage_of([run])
        assert [len(place.leftovers) for place in places] == [4, 0, 3, 0]
        gone = remove_leftovers(places)
        assert {each.path.name[0] for each in gone} == {"."}
        assert files(disk) == kept(disk)

    def test_engines_and_halves_in_the_cache(self, disk):
        write(disk / "cache/engines/tensorrt-0/a.engine", 500)
        age(write(disk / "cache/baselines/tmpabcd1234.part"), hours=2)
        (place,) = (each for each in disk_usage_of([]) if each.kind == "cache")
        assert place.size == 500 + 10 + 10 * len(CACHE_KEPT)
        assert sum(each.size for each in remove_leftovers([place])) == 510
        assert files(disk) == kept(disk)

    def test_scratch_of_a_process_that_died_a_day_ago(self, disk):
        for name in ("hwsearch-abcd1234", "hwsearch-kit-abcd1234"):
            write(disk / "scratch" / name / "model.onnx")
        other = write(disk / "scratch" / "hwsearch-notes" / "mine.txt")
        age(disk / "scratch", hours=25)
        fresh = write(disk / "scratch" / "hwsearch-zzzz9999" / "model.onnx")
        remove_leftovers(disk_usage_of([]))
        assert files(disk) == {*kept(disk), *(str(p.relative_to(disk)) for p in (other, fresh))}


class TestWhatStays:
    def test_what_somebody_may_be_writing(self, disk):
        run = disk / "runs" / "a"
        path = write(run / ".front.csv.abcd1234")
        folder = age(run / "subnets", hours=9) / f".{KEY}.abcd1234"
        age(write(folder / "model.onnx"), hours=9)
        write(folder / "card.json")
        assert not disk_usage_of([run])[0].leftovers
        age(folder, hours=2)
        assert [each.path for each in disk_usage_of([run])[0].leftovers] == [folder]
        age(path, hours=2)
        assert len(disk_usage_of([run])[0].leftovers) == 2

    def test_a_run_that_another_process_writes(self, disk):
        run = disk / "runs" / "a"
        path = age(write(run / ".front.csv.abcd1234"), hours=2)
        write(disk / "cache/engines/tensorrt-0/a.engine")
        places = disk_usage_of([run])
        with locked(run):
            assert [each.why for each in remove_leftovers(places)] == [disk_usage.ENGINE]
            assert path.is_file()
        assert remove_leftovers(disk_usage_of([run]))
        assert not path.exists()

    def test_what_a_link_points_to(self, disk):
        target = write(disk / "elsewhere" / "precious.txt", 1000)
        link = disk / "runs/a/.front.csv.abcd1234"
        link.symlink_to(target.parent)
        age(link, hours=2)
        (leftover,) = disk_usage_of([disk / "runs/a"])[0].leftovers
        assert leftover.size < 1000
        remove_leftovers(disk_usage_of([disk / "runs/a"]))
        assert target.is_file()
        assert not link.is_symlink()

    @pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owners here")
    def test_what_is_somebody_elses(self, disk, monkeypatch):
        age(write(disk / "runs/a/.front.csv.abcd1234"), hours=2)
        monkeypatch.setattr(os, "getuid", lambda: -1)
        assert not disk_usage_of([disk / "runs/a"])[0].leftovers


def test_runs_are_found_one_folder_down(disk):
    write(disk / "b" / "config.toml")
    write(disk / "deep" / "deeper" / "c" / "config.toml")
    assert runs_below(disk) == [disk / "b", disk / "runs" / "a"]
    assert runs_below(disk / "runs") == [disk / "runs" / "a"]
    assert runs_below(disk / "nowhere") == []


def test_sizes_follow_no_link(tmp_path):
    write(tmp_path / "a" / "b" / "file", 300)
    write(tmp_path / "c", 200)
    (tmp_path / "a" / "link").symlink_to(tmp_path / "c")
    assert 300 < size_of(tmp_path / "a") < 500
    assert size_of(tmp_path / "c") == 200
    assert size_of(tmp_path / "nowhere") == 0
