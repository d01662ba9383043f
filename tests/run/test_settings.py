"""Settings in a file: what is written says all there is, and what is read is checked."""

import inspect
import re
import tomllib
from dataclasses import asdict, fields

import pytest

import hwsearch
from hwsearch.errors import InputError
from hwsearch.run.config import RunConfig
from hwsearch.run.setting import explanation
from hwsearch.run.settings import (
    LARGEST,
    SearchSettings,
    read_settings,
    settings_text,
    write_settings,
)

SETTINGS = {field.name: field for field in fields(SearchSettings)}
NAMES = list(SETTINGS)
EXAMPLES = {n: f.metadata["example"] for n, f in SETTINGS.items() if f.default is None}


def read(tmp_path, text):
    path = tmp_path / "hwsearch.toml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path)


class TestWhatIsWritten:
    def test_says_what_a_search_does_by_default(self, tmp_path):
        write_settings(tmp_path / "hwsearch.toml")
        settings = read_settings(tmp_path / "hwsearch.toml")
        assert RunConfig(**settings) == RunConfig()
        assert set(settings) == {k for k, v in asdict(RunConfig()).items() if v is not None}

    def test_a_search_in_python_has_the_same_settings_and_defaults(self):
        given = dict(inspect.signature(hwsearch.search).parameters)
        assert given.pop("net").default == SETTINGS["supernet"].default
        assert given.pop("progress").default is None
        assert {"supernet", *given} == set(NAMES)
        for name, parameter in given.items():
            declared = SETTINGS[name].default
            # Where nothing is given a warm start may raise the budget, and lists are empty.
            expected = None if name == "budget" or declared == () else declared
            assert parameter.default == expected, name

    def test_help_explains_every_setting_in_the_same_words(self):
        for function, names in (
            (hwsearch.search, [name for name in NAMES if name != "supernet"]),
            (hwsearch.resume, ["budget", "minutes", "stop_gain", "workers"]),
        ):
            for name in names:
                line = f"        {name}: {explanation(SETTINGS[name])}"
                assert line in function.__doc__.splitlines()

    def test_what_is_not_set_is_an_example_that_can_be(self, tmp_path):
        text = re.sub(r"^# (\w+ = )", r"\1", settings_text(), flags=re.MULTILINE)
        settings = read(tmp_path, text)
        assert list(settings) == NAMES
        assert {name: settings[name] for name in EXAMPLES} == EXAMPLES

    def test_every_setting_is_explained(self):
        blocks = settings_text().split("[search]\n")[1].strip().split("\n\n")
        for block, name in zip(blocks, NAMES, strict=True):
            *comment, setting = block.splitlines()
            assert setting.removeprefix("# ").startswith(f"{name} = ")
            assert comment
            assert all(re.match(r"# \S", line) for line in comment)
            assert " ".join(comment).endswith(".")
            assert "`" not in block
            assert "None" not in block, "a file of settings knows no None"

    def test_replaces_nothing(self, tmp_path):
        path = tmp_path / "mine.toml"
        path.write_text("mine")
        with pytest.raises(InputError, match=r"mine.toml' exist already"):
            write_settings(path)
        assert path.read_text() == "mine"
        with pytest.raises(InputError, match="there is no folder"):
            write_settings(tmp_path / "nowhere" / "mine.toml")


class TestWhatIsRead:
    def test_only_what_is_said_counts(self, tmp_path):
        assert read(tmp_path, "") == {}
        text = '[search]\nbudget = 7\nonly = ["a in 1,2"]\nout = "runs/x"\n'
        assert read(tmp_path, text) == {"budget": 7, "only": ("a in 1,2",), "out": "runs/x"}

    @pytest.mark.parametrize("text", ["\ufeff[search]\nseed = 3\n", "[search]\r\nseed = 3\r\n"])
    def test_marks_and_line_ends_of_other_editors_are_read(self, tmp_path, text):
        for name in ("hwsearch.toml", "config.toml"):
            (tmp_path / name).write_bytes(text.encode())
            assert read_settings(tmp_path / name) == {"seed": 3}

    def test_the_record_of_a_run_repeats_it(self, tmp_path):
        path = tmp_path / "config.toml"
        path.write_text('[search]\nseed = 3\n[recorded]\nspace = "abc"\n')
        assert read_settings(path) == {"seed": 3}

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("[search]\nbudgte = 7", ["unknown setting in", "'budgte'", "Did you mean 'budget'?"]),
            ("[search]\nstop-gain = 1", ["'stop-gain'", "Did you mean 'stop_gain'?"]),
            ("[search]\nbudget = '7'", ["budget is '7'; give a whole number from 1 up"]),
            ("[search]\nbudget = 7.0", ["budget is 7.0; give a whole number"]),
            ("[search]\nbatch = 0", ["batch is 0; give a whole number"]),
            ("[search]\nseed = true", ["seed is True; give a whole number"]),
            ("[search]\nminutes = 'ten'", ["minutes 'ten' is not usable"]),
            ("[search]\nstop_gain = nan", ["stop_gain nan is not usable"]),
            ("[search]\nobjectives = 'top1'", ["objectives is 'top1'; give a list of texts"]),
            ("[search]\nfreeze = [1]", ["freeze is (1,); give a list of texts"]),
            ("[search]\ndevice = 4", ["device is 4; give text"]),
            ("[search]\ncheckpoint = 4", ["checkpoint is 4; give a file or random:SEED"]),
            ("[search]\nwarm_start = []", ["warm_start is (); give a run or a CSV file"]),
            ("[search]\nout = 4", ["out is 4; give a folder"]),
            (
                "[search]\nworkers = 0",
                ["workers 0 are not usable: a search evaluates in its own process"],
            ),
            ("[search]\ntactic = 'hwserch'", ["'hwserch'", "Did you mean 'hwsearch'?"]),
            ("[search]\nprior = 'maybe'", ["'maybe'", "on, off"]),
            ("budget = 7", ["'budget' where a table [search] belongs"]),
            ("search = 7", ["'search' where a table [search] belongs"]),
            ("[search]\n[recorded]", ["'recorded' where a table [search] belongs"]),
            ("[search", ["cannot be read"]),
            ("[search]\nx = " + "[" * 5000, ["cannot be read"]),
            ("#" * LARGEST + "\n", ["more than 1,000,000 bytes", "hwsearch init"]),
        ],
    )
    def test_what_cannot_be_is_one_clear_error(self, tmp_path, text, parts):
        with pytest.raises(InputError) as refused:
            read(tmp_path, text)
        message = str(refused.value)
        assert "hwsearch.toml" in message
        assert "\n" not in message
        for part in parts:
            assert part in message

    def test_a_setting_of_a_former_version_is_ignored(self, tmp_path):
        assert read(tmp_path, "[search]\nrace = true\nbudget = 7") == {"budget": 7}

    def test_what_is_not_there_or_not_text(self, tmp_path):
        with pytest.raises(InputError, match=r"no file of settings .*hwsearch init"):
            read_settings(tmp_path / "nowhere.toml")
        with pytest.raises(InputError, match="cannot be read"):
            read_settings(tmp_path)
        (tmp_path / "hwsearch.toml").write_bytes(b"\xff\xfe")
        with pytest.raises(InputError, match="cannot be read"):
            read_settings(tmp_path / "hwsearch.toml")

    def test_what_is_written_is_toml_that_others_read(self):
        assert tomllib.loads(settings_text())["search"]["budget"] == RunConfig().budget


def test_a_key_of_very_many_parts_is_refused_before_it_is_parsed(tmp_path):
    path = tmp_path / "hwsearch.toml"
    path.write_text("[search]\n" + ".".join(["a"] * 6000) + " = 1\n")
    with pytest.raises(InputError, match="more than 5,000 dots"):
        read_settings(path)
