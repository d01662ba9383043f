"""Files and folders that are complete or not there, and where they lie."""

import contextlib
import errno
import io
import os

import numpy as np
import pytest

from hwsearch.files import (
    DISK_ERRNOS,
    file_system,
    flush,
    parsed_json,
    plain_array,
    plain_arrays,
    staged_file,
    staged_folder,
    unpacked_size,
    write_atomic,
)

MOUNTS = r"""22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw
31 22 0:27 / /home/ada rw,relatime shared:9 - nfs4 server:/home/ada rw,vers=4.2
32 31 0:28 / /home/ada/my\040disk rw shared:10 - xfs /dev/sdb1 rw
33 22 0:30 / /mnt/box rw - fuse.sshfs ada@box:/ rw
34 22 0:31 / /mnt/box rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/home/ada", "nfs4"),
        ("/home/ada/runs/first", "nfs4"),
        ("/home/adams/runs", "ext4"),
        ("/home/ada/my disk/runs", "xfs"),
        ("/mnt/box/runs", "tmpfs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(path, kind, tmp_path):
    assert file_system(tmp_path.__class__(path), MOUNTS) == kind


def test_where_nothing_is_known_of_mounts_nothing_is_said(tmp_path):
    assert file_system(tmp_path, "") == ""
    assert isinstance(file_system(tmp_path), str)


@pytest.fixture
def order(monkeypatch):
    """Names of files in the order in which they are flushed and renamed."""
    found = []
    names = "/proc/self/fd/{}"
    fsync, rename = os.fsync, os.rename

    def noting(handle):
        found.append(("flush", os.path.basename(os.readlink(names.format(handle)))))
        fsync(handle)

    def renaming(source, target, **named):
        found.append(("rename", os.path.basename(target)))
        rename(source, target, **named)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(os, "rename", renaming)
    monkeypatch.setattr(os, "replace", renaming)
    return found


def test_a_file_is_flushed_before_it_has_its_name(order, tmp_path):
    write_atomic(tmp_path / "front.csv", "key\n")
    (written, first), *rest = order
    assert written == "flush"
    assert first.startswith(".front.csv.")
    assert rest == [("rename", "front.csv"), ("flush", tmp_path.name)]


def test_a_folder_is_flushed_with_all_that_it_holds_before_it_has_its_name(order, tmp_path):
    with staged_folder(tmp_path / "subnet") as folder:
        (folder / "model.onnx").write_bytes(b"model")
        (folder / "card.json").write_text("{}")
    staged, renamed = order[:3], order[3:]
    assert {name for _, name in staged[:2]} == {"model.onnx", "card.json"}
    assert staged[2][1].startswith(".subnet.")
    assert renamed == [("rename", "subnet"), ("flush", tmp_path.name)]


def test_a_full_disk_leaves_what_was_there(monkeypatch, tmp_path):
    write_atomic(tmp_path / "front.csv", "before")

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomic(tmp_path / "front.csv", "after")
    assert caught.value.errno in DISK_ERRNOS
    assert [path.name for path in tmp_path.iterdir()] == ["front.csv"]
    assert (tmp_path / "front.csv").read_text() == "before"


def test_what_flushes_no_folders_does_without(monkeypatch, tmp_path):
    def refusing(handle):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refusing)
    flush(tmp_path)


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0o002, 0o664, 0o775), (0o077, 0o600, 0o700)]
)
def test_permissions_are_those_that_the_umask_leaves(umask, file, folder, tmp_path):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "front.csv", "key\n")
        with staged_file(tmp_path / "kit.pyz") as staged:
            staged.write(b"kit")
        with staged_folder(tmp_path / "subnet") as inside:
            write_atomic(inside / "card.json", "{}")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"front.csv": file, "kit.pyz": file, "card.json": file, "subnet": folder}


def test_a_file_whose_writing_fails_leaves_nothing(tmp_path):
    with pytest.raises(TypeError), staged_file(tmp_path / "kit.pyz") as staged:
        staged.write(b"half" + staged)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ['{"a": 1}', '\ufeff{"a": 1}'])
def test_a_byte_order_mark_before_json_is_no_part_of_it(text):
    assert parsed_json(text) == parsed_json(text.encode()) == {"a": 1}


def test_json_that_is_not_utf_8_is_a_value_error():
    with pytest.raises(ValueError, match="utf-8"):
        parsed_json(b'{"a": "\xe4"}')


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
@pytest.mark.parametrize("read", [plain_array, plain_arrays, unpacked_size])
@pytest.mark.parametrize("save", [np.save, np.savez, np.savez_compressed])
def test_arrays_with_any_damaged_byte_are_read_or_refused(save, read):
    file = io.BytesIO()
    save(file, np.arange(3.0))
    whole = file.getvalue()
    for place in range(len(whole)):
        for damage in (b"", b"\0", b"\2", b"B", b",", b"\xff"):
            with contextlib.suppress(ValueError, MemoryError):
                read(io.BytesIO(whole[:place] + damage + whole[place + 1 :]))


def test_arrays_come_as_they_were_written():
    file, several = io.BytesIO(), io.BytesIO()
    np.save(file, np.arange(3))
    np.savez(several, a=np.arange(3), b=np.eye(2))
    assert plain_array(io.BytesIO(file.getvalue())).tolist() == [0, 1, 2]
    assert sorted(plain_arrays(io.BytesIO(several.getvalue()))) == ["a", "b"]


def test_one_array_is_not_taken_for_several_nor_several_for_one():
    one, several = io.BytesIO(), io.BytesIO()
    np.save(one, np.arange(3))
    np.savez(several, a=np.arange(3))
    behind = io.BytesIO(one.getvalue() + several.getvalue())  # a zip by its end
    for read, given in ((plain_arrays, one), (plain_arrays, behind), (plain_array, several)):
        given.seek(0)
        with pytest.raises(ValueError, match="several"):
            read(given)
