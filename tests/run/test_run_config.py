import pytest

from hwsearch.errors import InputError
from hwsearch.run.config import RunConfig, read_config, software_versions, write_config

FULL = RunConfig(
    supernet="module:function",
    checkpoint="weights.safetensors",
    device="ort-cpu:threads=2",
    data='imagefolder:/data/it\'s "here"',
    objectives=("top1", "macs"),
    constraints=("macs <= 400e6",),
    budget=7,
    tactic="nsga2",
    seed=3,
    batch=2,
    minutes=1.5,
    stop_gain=0.25,
    freeze=("stage1.*=max",),
    only=("resolution in 160,192", "act in 'relu'"),
    prior="off",
    warm_start="runs/first",
)
RECORDED = {"weights": "0123", "device": {"cpu": "some CPU", "threads": 2}}


@pytest.mark.parametrize("config", [RunConfig(), FULL])
def test_comes_back_as_it_was_written(tmp_path, config):
    write_config(tmp_path, config, RECORDED)
    assert read_config(tmp_path) == (config, RECORDED)
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_writing_again_replaces(tmp_path):
    write_config(tmp_path, RunConfig(), RECORDED)
    write_config(tmp_path, FULL, RECORDED)
    assert read_config(tmp_path)[0] == FULL


def test_a_file_of_before_there_were_rules_is_read(tmp_path):
    content = "[search]\nsupernet = 'cifar10-resnet'\nbudget = 7\n[recorded]\nweights = '0123'\n"
    (tmp_path / "config.toml").write_text(content)
    config, recorded = read_config(tmp_path)
    assert config == RunConfig(budget=7)
    assert (config.freeze, config.only) == ((), ())
    assert recorded == {"weights": "0123"}


@pytest.mark.parametrize("value", ["true", "false"])
def test_a_setting_of_a_former_version_is_ignored(tmp_path, value):
    (tmp_path / "config.toml").write_text(f"[search]\nrace = {value}\nseed = 2\n[recorded]\n")
    assert read_config(tmp_path)[0] == RunConfig(seed=2)


def test_another_budget_changes_nothing_else():
    assert FULL.with_limits({"budget": None}) == FULL
    changed = FULL.with_limits({"budget": 9})
    assert changed.budget == 9
    assert changed.with_limits({"budget": 7}) == FULL


def test_other_limits_change_nothing_else():
    assert FULL.with_limits({"minutes": None, "stop_gain": None}) == FULL
    changed = FULL.with_limits({"minutes": 5.0, "stop_gain": 0.1})
    assert (changed.budget, changed.minutes, changed.stop_gain) == (7, 5.0, 0.1)
    assert changed.with_limits({"budget": 7, "minutes": 1.5, "stop_gain": 0.25}) == FULL
    assert (changed.stopping.budget, changed.stopping.minutes) == (7, 5.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"budget": 0}, "budget is 0; give a whole number from 1 up"),
        ({"budget": 2.5}, "budget is 2.5"),
        ({"budget": True}, "budget is True"),
        ({"batch": 0}, "batch is 0"),
        ({"minutes": 0}, "minutes 0 is not usable; give a positive number"),
        ({"stop_gain": "little"}, "stop_gain 'little' is not usable"),
        ({"prior": "maybe"}, "unknown prior 'maybe'; known: on, off"),
        ({"warm_start": 3}, "warm_start is 3; give a run or a CSV file"),
        ({"seed": -1}, "seed is -1; give a whole number from 0 up"),
        ({"seed": True}, "seed is True"),
        ({"tactic": "nsga"}, "unknown tactic 'nsga'; known: .* Did you mean 'nsga2'"),
    ],
)
def test_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        RunConfig(**settings)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not toml", "cannot be read"),
        ("[search]\n", "cannot be read: 'recorded'"),
        ("search = 3\nrecorded = 4\n", "cannot be read"),
        ("[search]\nbugdet = 3\n[recorded]\n", "unknown setting in .*Did you mean 'budget'"),
        ("[search]\nbudget = 'many'\n[recorded]\n", "budget is 'many'"),
        ("[search]\nobjectives = 'top1'\n[recorded]\n", "objectives is 'top1'"),
        ("[search]\nfreeze = 'a=1'\n[recorded]\n", "freeze is 'a=1'; give a list"),
        ("[search]\nonly = [3]\n[recorded]\n", "only is"),
        ("[search]\nsupernet = 3\n[recorded]\n", "supernet is 3"),
    ],
)
def test_refuses_a_file_that_it_did_not_write(tmp_path, content, message):
    (tmp_path / "config.toml").write_text(content)
    with pytest.raises(InputError, match=message):
        read_config(tmp_path)


def test_refuses_bytes_that_are_no_text(tmp_path):
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_config(tmp_path)


def test_versions_hold_what_decides_numbers():
    assert {"python", "torch", "onnx", "numpy"} <= set(software_versions())
