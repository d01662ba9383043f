"""A kit where it runs: with nothing of ours installed, stopped and gone on with."""

import json
import zipfile

import pytest
from hwsearch_test_plugin.scripted_device import FakeDevice

from hwsearch.kit import main as kit_main
from hwsearch.kit.manifest import read_manifest
from hwsearch.kit.results import read_results
from hwsearch.tables import LatencyTable
from tests.kit import bare, kit_parts

DEVICE = ["--device", "scripted"]


def measure(kit, out, *more):
    return kit_main.main([*DEVICE, "--out", str(out), *more], kit)


@pytest.fixture(scope="module")
def measured(real_kit, python, tmp_path_factory):
    """The file of a kit that was run as on another machine, and what it printed."""
    folder = tmp_path_factory.mktemp("there")
    device = "ort-cpu:threads=1"
    done = bare.run(python, real_kit, "--device", device, "--out", "t.json", cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "t.json", done.stdout


def test_it_measures_where_there_is_only_numpy_and_onnxruntime(real_kit, measured):
    path, printed = measured
    assert "8 of 8  complete" in printed
    assert printed.endswith("take it back and run: hwsearch search --device kit:t.json\n")
    table, facts = read_results(path)
    assert facts.missing == []
    assert facts.failed == {}
    assert table == LatencyTable.load(path)
    assert (table.device, table.fingerprint["threads"]) == ("ort-cpu:threads=1", 1)
    assert [s.architecture for s in table.subnets] == [
        m.architecture for m in read_manifest(real_kit).models
    ]
    for key in facts.latencies:
        assert facts.latency(key, "here").rounds >= 5


def test_block_times_come_with_it(real_kit, measured):
    table = LatencyTable.load(measured[0])
    assert not table.missing(read_manifest(real_kit).specs)
    net = kit_parts.supernet()
    for subnet in table.subnets:
        chain = net.blocks(net.space.architectures([subnet.architecture])[0])
        total = table.latency_ms(block.spec for block in chain)
        assert 0.2 < total / subnet.latency_ms < 5


def test_a_stop_loses_one_group_at_most_and_the_same_command_goes_on(
    scripted_kit, tmp_path, monkeypatch, capsys
):
    out, sizes, scripted = tmp_path / "t.json", [], FakeDevice.measure

    def interrupted(self, models, **settings):
        sizes.append(len(models))
        if len(sizes) == 2:
            raise KeyboardInterrupt
        return scripted(self, models, **settings)

    monkeypatch.setattr(FakeDevice, "measure", interrupted)
    assert measure(scripted_kit, out) == kit_main.INTERRUPTED
    said = capsys.readouterr().err
    assert f"5 of 12 models are kept in {out}" in said
    assert f"go on by: python {scripted_kit} --device scripted --out {out}" in said
    assert len(read_results(out)[1].missing) == 7
    assert measure(scripted_kit, out) == 0
    assert sizes == [5, 5, 5, 2]
    table, facts = read_results(out)
    assert len(table.subnets) == 12
    assert facts.missing == []
    before = out.read_bytes()
    assert measure(scripted_kit, out) == 0
    assert out.read_bytes() == before
    assert len(sizes) == 4


def test_a_model_that_fails_is_named_and_the_others_count(
    scripted_kit, tmp_path, monkeypatch, capsys
):
    from hwsearch.errors import DeviceError

    (lost, *others) = [model.key for model in read_manifest(scripted_kit).models]

    def failing(self, latency_ms):
        raise DeviceError("crashed with SIGSEGV")

    scripted = FakeDevice.measure

    def measured(self, models, **settings):
        results = scripted(self, models, **settings)
        return {k: DeviceError("crashed") if k == lost else r for k, r in results.items()}

    monkeypatch.setattr(FakeDevice, "measure", measured)
    assert measure(scripted_kit, tmp_path / "t.json") == 0
    assert f"{lost} has none: crashed" in capsys.readouterr().out
    facts = read_results(tmp_path / "t.json")[1]
    assert (facts.failed, set(facts.latencies)) == ({lost: "crashed"}, set(others))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "ort-cqu"], "unknown device 'ort-cqu'; known: scripted"),
        (["--device", "scripted:threads=2"], "unknown option of scripted 'threads'"),
        (["--device", "scripted:threads"], "'threads' is not of the form OPTION=VALUE"),
    ],
)
def test_a_device_that_it_does_not_have_is_refused(
    arguments, said, scripted_kit, tmp_path, capsys
):
    assert kit_main.main([*arguments, "--out", str(tmp_path / "t")], scripted_kit) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "t").exists()


def test_results_of_another_kit_are_left_alone(scripted_kit, tmp_path, capsys):
    other, out = tmp_path / "other.pyz", tmp_path / "t.json"
    kit_parts.scripted_kit(other, n=9)
    assert measure(other, out) == 0
    before = out.read_bytes()
    assert measure(scripted_kit, out) == 2
    assert "was measured by another kit" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_results_of_another_machine_are_left_alone(scripted_kit, tmp_path, monkeypatch, capsys):
    out = tmp_path / "t.json"
    assert measure(scripted_kit, out) == 0
    monkeypatch.setattr(FakeDevice, "fingerprint", lambda self: {"cpu": "another"})
    assert measure(scripted_kit, out) == 2
    assert "they are not comparable; give another --out" in capsys.readouterr().err


def test_a_file_that_is_no_result_is_left_alone(scripted_kit, tmp_path, capsys):
    out = tmp_path / "letter.txt"
    out.write_text("Dear")
    assert measure(scripted_kit, out) == 2
    assert "was not written by a kit" in capsys.readouterr().err
    assert out.read_text() == "Dear"


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        ([], "numpy is needed: "),
        (["numpy"], "device 'ort-cpu' cannot be used here: onnxruntime is not installed"),
    ],
)
def test_what_is_missing_is_said_in_one_line(packages, said, real_kit, tmp_path):
    lacking = bare.make_python(tmp_path / "env", packages)
    done = bare.run(lacking, real_kit, "--device", "ort-cpu", cwd=tmp_path)
    assert done.returncode != 0
    assert done.stderr.startswith(f"error: {said}")
    assert done.stderr.count("\n") == 1


def test_a_folder_in_the_way_poses_as_no_library(real_kit, python, tmp_path):
    (tmp_path / "numpy.py").write_text("raise SystemExit('posed')")
    done = bare.run(python, real_kit, "--device", "ort-cpu", "--out", "t.json", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads((tmp_path / "t.json").read_text())["format"] == "hwsearch latency table"


class TestDamagedKits:
    def test_a_model_that_was_changed_is_refused(self, scripted_kit, tmp_path, capsys):
        def change(name, content):
            return content[:-1] + b"!" if name.startswith("models/") else content

        kit = kit_parts.rewritten(scripted_kit, tmp_path / "kit.pyz", change)
        assert measure(kit, tmp_path / "t.json") == 2
        assert "is not the file whose SHA-256 kit.json says" in capsys.readouterr().err

    def test_a_model_that_unpacks_to_more_is_refused(self, scripted_kit, tmp_path, capsys):
        def change(name, content):
            return content + bytes(10**7) if name.startswith("models/") else content

        kit = kit_parts.rewritten(scripted_kit, tmp_path / "kit.pyz", change)
        assert measure(kit, tmp_path / "t.json") == 2
        assert "it has not the" in capsys.readouterr().err

    def test_a_model_that_is_missing_is_refused(self, scripted_kit, tmp_path, capsys):
        def change(name, content):
            return None if name.startswith("models/") else content

        kit = kit_parts.rewritten(scripted_kit, tmp_path / "kit.pyz", change)
        assert measure(kit, tmp_path / "t.json") == 2
        assert "of this kit is damaged" in capsys.readouterr().err

    def test_an_error_without_a_text_is_named(self, scripted_kit, tmp_path, capsys, monkeypatch):
        """As zipfile raises it where a member ends early."""

        def ending_early(self, n=-1):
            if self.name.startswith("models/"):
                raise EOFError
            return whole(self, n)

        whole = zipfile.ZipExtFile.read
        monkeypatch.setattr(zipfile.ZipExtFile, "read", ending_early)
        assert measure(scripted_kit, tmp_path / "t.json") == 2
        assert "of this kit is damaged: EOFError; copy" in capsys.readouterr().err

    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a", 7, None])
    def test_a_name_that_is_no_key_is_refused(self, name, scripted_kit, tmp_path, capsys):
        kit = kit_parts.with_manifest(
            scripted_kit, tmp_path / "kit.pyz", lambda record: record["models"][0].update(key=name)
        )
        assert measure(kit, tmp_path / "t.json") == 2
        assert "which is no key" in capsys.readouterr().err

    @pytest.mark.parametrize("size", [0, -1, 2**40, "many"])
    def test_a_size_beyond_bounds_is_refused(self, size, scripted_kit, tmp_path, capsys):
        kit = kit_parts.with_manifest(
            scripted_kit,
            tmp_path / "kit.pyz",
            lambda record: record["models"][0].update(n_bytes=size),
        )
        assert measure(kit, tmp_path / "t.json") == 2
        assert f"takes {size!r} bytes; 1 to" in capsys.readouterr().err

    @pytest.mark.parametrize("lost", ["specs", "models", "supernet", "schema", "format"])
    def test_a_manifest_that_lacks_something_is_refused(
        self, lost, scripted_kit, tmp_path, capsys
    ):
        kit = kit_parts.with_manifest(
            scripted_kit, tmp_path / "kit.pyz", lambda record: record.pop(lost)
        )
        assert measure(kit, tmp_path / "t.json") == 2
        assert lost in capsys.readouterr().err

    def test_another_schema_is_refused(self, scripted_kit, tmp_path, capsys):
        kit = kit_parts.with_manifest(
            scripted_kit, tmp_path / "kit.pyz", lambda record: record.update(schema=2)
        )
        assert measure(kit, tmp_path / "t.json") == 2
        assert "is a kit of schema 2, and this version" in capsys.readouterr().err

    def test_what_is_no_kit_is_refused(self, tmp_path, capsys):
        (tmp_path / "no.pyz").write_text("PK no zip")
        assert measure(tmp_path / "no.pyz", tmp_path / "t.json") == 2
        assert "is no kit of hwsearch" in capsys.readouterr().err
        assert measure(tmp_path / "none.pyz", tmp_path / "t.json") == 2
        assert "there is no kit" in capsys.readouterr().err
