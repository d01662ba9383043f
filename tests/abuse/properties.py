"""What may be given to hwsearch, well-formed or not: each is taken or refused by a clear error.

A property is a strategy and a function that uses what it draws. `HwsearchError` is a refusal,
anything else that comes out is a bug. ``python tools/fuzz.py`` tries many examples of each.
"""

import contextlib
import functools
import json
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

import numpy as np
import tomli_w
from hypothesis import HealthCheck, given, settings, strategies as st
from typer.testing import CliRunner

import hwsearch
import tests.run.search_parts as parts
from hwsearch import Run
from hwsearch.accuracy.sources import load_task
from hwsearch.cli import app
from hwsearch.constraints import Constraint
from hwsearch.devices import load_device
from hwsearch.encoding import thermometer
from hwsearch.errors import HwsearchError
from hwsearch.kit.manifest import Manifest
from hwsearch.kit.results import FACTS, _digest, latency_record, read_results
from hwsearch.models.artifact import CARD
from hwsearch.prediction.folder import read_folder
from hwsearch.restriction import restricted
from hwsearch.run.outcome import read_members
from hwsearch.run.search_summary import SearchSummary
from hwsearch.space import Choice, SearchSpace
from hwsearch.tables import DIGEST, LatencyTable
from hwsearch.trial_store import Store
from hwsearch.verify.subnet import verify_artifact
from tests.abuse.drawn import (
    anything,
    changes,
    damages,
    names,
    options,
    scalars,
    with_changes,
    with_damage,
)

ROOT = Path(__file__).parents[2]


@functools.cache
def sound():
    """A finished run, a table, a kit and a predictor to be damaged."""
    folder = Path(tempfile.mkdtemp(prefix="hwsearch-sound-"))
    before = hwsearch.run.setup.load_device, hwsearch.run.finish.run_infer
    hwsearch.run.setup.load_device = lambda spec: parts.InProcess()
    hwsearch.run.finish.run_infer = lambda folder: "scripted\n"
    try:
        hwsearch.search(**{**parts.SETTINGS, "budget": 6}, out=folder / "run")
    finally:
        hwsearch.run.setup.load_device, hwsearch.run.finish.run_infer = before
    return folder


@functools.cache
def scratch():
    return Path(tempfile.mkdtemp(prefix="hwsearch-fuzz-"))


@functools.cache
def record_of(path):
    text = path.read_text()
    return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)


def table_file():
    return ROOT / "latency_tables" / "cifar10-resnet@ort-cpu-threads1.json"


@st.composite
def spaces(draw):
    """Up to 60 choices, each unconditional or active for some options of another one."""
    count = draw(st.integers(1, 60))
    choices = []
    for number in range(count):
        values = draw(options)
        active = None
        if choices and draw(st.booleans()):
            parent = draw(st.sampled_from(choices))
            some = st.lists(st.sampled_from(parent[1]), min_size=1, unique=True)
            active = (parent[0], tuple(draw(some)))
        choices.append((f"c{number}", sorted(values), active))
    if draw(st.integers(0, 9)) == 0:
        odd = st.tuples(scalars | names, anything, anything)
        choices[draw(st.integers(0, count - 1))] = draw(odd)
    return choices


def use_space(choices):
    space = SearchSpace(Choice(name, values, active) for name, values, active in choices)
    archs = space.sample(20, seed=0)
    assert SearchSpace.from_json(space.to_json()) == space
    assert space.architectures([dict(arch.mapping) for arch in archs]).ids == archs.ids
    assert np.isfinite(thermometer(archs)).all()
    for end in (space.smallest(), space.largest()):
        assert end[0].key in space.architectures([end[0].mapping]).ids


fragments = st.sampled_from(
    (
        *("latency", "top1", " ", "<=", ">=", "<", ">", "=", "12", "1e999", "nan", "-3", "400e6"),
        *("@", "95%", "%", " in ", "stage1.*", "*", "max", "min", ",", "[", "]", "\n", "é"),
        "a" * 300,
    )
)
texts = st.lists(fragments | st.text(max_size=4), max_size=7).map("".join)
bounds = st.tuples(
    st.sampled_from(("latency", "top1", "macs")), st.sampled_from(("<=", ">=", " <= ", " >= ")),
    st.floats().map(repr) | st.integers().map(str), st.sampled_from(("", " @ 95%", " @ 1e9%")),
).map("".join)  # fmt: skip
rules = st.tuples(
    st.sampled_from(("*", "stage*", "*.depth", "stage1.*")), st.sampled_from(("=", " in ")),
    st.sampled_from(("max", "min", "1", "1,2", "*", "max,min", "")),
).map("".join)  # fmt: skip


def use_constraint(text):
    constraint = Constraint.parse(text)
    assert Constraint.parse(str(constraint)) == constraint


def use_rules(rules):
    space = parts.network().space
    assert restricted(space, freeze=rules[:1], only=rules[1:]).size <= space.size


def use_selection(text):
    Run(sound() / "run").select(text)


def use_config(made):
    path = scratch() / "config" / "config.toml"
    path.parent.mkdir(exist_ok=True)
    record = with_changes(record_of(sound() / "run" / "config.toml"), made)
    try:
        path.write_text(tomli_w.dumps(record))
    except (TypeError, ValueError, AttributeError):
        return  # TOML cannot say that
    look_at(Run(path.parent))


def look_at(run):
    for what in ("title", "objectives", "untrained", "finished", "with_images"):
        getattr(run, what)
    repr(run)


def use_config_text(made):
    path = scratch() / "config" / "config.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(with_damage((sound() / "run" / "config.toml").read_bytes(), made))
    look_at(Run(path.parent))


@functools.cache
def unsealed():
    """A table of the schema that has no digest, which would find every change."""
    record = record_of(table_file())
    return {name: value for name, value in record.items() if name != DIGEST} | {"schema": 1}


def use_table(made):
    text = json.dumps(with_changes(unsealed(), made))
    table = LatencyTable.from_json(text)
    assert LatencyTable.from_json(table.to_json()) == table


def use_table_text(made):
    LatencyTable.from_json(with_damage(table_file().read_bytes(), made))


def use_card(made):
    folder = next((sound() / "run" / "subnets").iterdir())
    copy = scratch() / "subnet"
    copy.mkdir(exist_ok=True)
    for path in folder.iterdir():
        if not (copy / path.name).exists():
            (copy / path.name).write_bytes(path.read_bytes())
    record = with_changes(record_of(folder / CARD), made)
    (copy / CARD).write_text(json.dumps(record))
    before = hwsearch.verify.subnet.run_infer
    hwsearch.verify.subnet.run_infer = lambda folder: "scripted\n"
    try:
        verify_artifact(copy, parts.InProcess())
    finally:
        hwsearch.verify.subnet.run_infer = before


@functools.cache
def manifest():
    spec = {"kind": "conv", "hyperparameters": {"out": 8}, "input_shape": [3, 8, 8]}
    model = {"key": "0" * 16, "architecture": {"depth": 2}, "sha256": "0" * 64, "n_bytes": 9}
    return {
        "format": "hwsearch kit",
        "schema": 1,
        "purpose": "table",
        "supernet": "tiny",
        "space": "0" * 16,
        "anchor": "0" * 64,
        "devices": {"ort-cpu": "hwsearch.devices.ort_cpu:DEVICE"},
        "specs": [{**spec, "dtype": "float32"}],
        "models": [{**model, "blocks": {"stem": 0}}],
        "settings": {"half_width": 0.5},
    }


def use_kit(made):
    found = Manifest.from_json(json.dumps(with_changes(manifest(), made)), "this kit")
    assert len(found.digest) == 16
    found.to_json()


@functools.cache
def latency():
    model = next((sound() / "run" / "subnets").glob("*/model.onnx"))
    return latency_record(parts.InProcess().measure({"a": model}, seed=0)["a"])


def use_results(made):
    facts = {"digest": "0", "purpose": "table", "run": "", "command": "python kit.pyz", "total": 1}
    facts |= {"missing": [], "failed": {}, "latencies": {"a": latency()}, "profiles": {}}
    record = {**unsealed(), "facts": {FACTS: {**facts, "content": ""}}}
    record = with_changes(record, made)
    with contextlib.suppress(TypeError, KeyError, IndexError):
        record["facts"][FACTS]["content"] = _digest(record)  # as somebody who knows how would
    path = scratch() / "results.json"
    path.write_text(json.dumps(record))
    _, found = read_results(path)
    for key in found.latencies:
        found.latency(key, "results.json")


def use_summary(made):
    record = with_changes(record_of(sound() / "run" / "search.json"), made)
    SearchSummary.from_json(json.dumps(record), "search.json")


def use_members(made):
    path = scratch() / "front.csv"
    path.write_bytes(with_damage((sound() / "run" / "front.csv").read_bytes(), made))
    read_members(path, ["top1", "latency"])


def use_predictor(made):
    source, copy = ROOT / "predictors" / "cifar10-resnet" / "top1", scratch() / "predictor"
    copy.mkdir(exist_ok=True)
    (copy / CARD).write_text(json.dumps(with_changes(record_of(source / CARD), made)))
    (copy / "parameters.npz").write_bytes((source / "parameters.npz").read_bytes())
    read_folder(copy)
    hwsearch.Predictor.load(copy)


def use_store(made):
    path = scratch() / "trials.sqlite"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.write_bytes(with_damage((sound() / "run" / "trials.sqlite").read_bytes(), made))
    with Store(path) as store:
        store.trials()
        store.measurements()


def use_device(text):
    load_device(text)


def use_data(text):
    load_task(text, parts.network().input_spec(parts.network().space.smallest()[0]), "miniature")


words = st.one_of(
    st.sampled_from(
        (
            *("search", "resume", "front", "export", "verify", "profile", "kit", "confirm"),
            *("import", "--out", "--budget", "--select", "--json", "--as", "--device", "--data"),
            *("--constraint", "--freeze", "--only", "--prior", "--tactic", "RUN", "NOWHERE"),
            *("FILE", "0", "-1", "nan", "latency <= 1", "ort-cpu:threads=0", "none", "kit:FILE"),
            *("npz:FILE", "random:x"),
        )
    ),
    st.text(max_size=5),
)


def use_command(arguments):
    """The run that commands find is damaged, so that none of them searches or measures."""
    file = scratch() / "file"
    file.write_bytes(b"\0nothing")
    damaged = scratch() / "damaged"
    damaged.mkdir(exist_ok=True)
    (damaged / "config.toml").write_text("[search]\nbudget = 0\n[recorded]\n")
    named = {"RUN": str(damaged), "NOWHERE": str(scratch() / "nowhere"), "FILE": str(file)}
    given = [named.get(word, word.replace("FILE", str(file))) for word in arguments]
    if given[:1] == ["search"]:
        given.append("--supernet=no-such-supernet")
    if given[:1] in (["profile"], ["kit"]):
        given = [given[0], "no-such-supernet"]
    result = CliRunner().invoke(app, [word for word in given if "\0" not in word])
    assert result.exit_code in (0, 1, 2, 3), result
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert "--debug ...' shows where" not in result.output, result.output
    if result.exit_code:
        raise HwsearchError(result.output)


PROPERTIES = {
    "space": (spaces(), use_space),
    "space text": (anything.map(json.dumps) | texts, SearchSpace.from_json),
    "constraint": (texts | bounds, use_constraint),
    "rules": (st.lists(texts | rules, max_size=3), use_rules),
    "selection": (texts | bounds, use_selection),
    "configuration": (changes, use_config),
    "configuration text": (damages, use_config_text),
    "table": (changes, use_table),
    "table text": (damages, use_table_text),
    "card": (changes, use_card),
    "kit": (changes, use_kit),
    "kit results": (changes, use_results),
    "summary": (changes, use_summary),
    "front": (damages, use_members),
    "predictor": (changes, use_predictor),
    "store": (damages, use_store),
    "device": (texts, use_device),
    "data": (texts, use_data),
    "command line": (st.lists(words, max_size=7), use_command),
}


def refused(use, given):
    """Use what was drawn; say whether it was refused."""
    said = None
    try:
        use(given)
    except HwsearchError as error:
        said = str(error)
    assert said is None or said.strip(), "a refusal has to say why"
    return said is not None


def attempts(name, found=None, **options):
    """Return a test of one property, to be called.

    Args:
        name: Of the property.
        found: A counter of examples ``tried``, ``taken`` and ``refused``.
        options: Settings of hypothesis.
    """
    strategy, use = PROPERTIES[name]
    found = Counter() if found is None else found

    @settings(deadline=None, suppress_health_check=list(HealthCheck), **options)
    @given(strategy)
    def attempt(drawn):
        found["tried"] += 1
        found["refused" if refused(use, drawn) else "taken"] += 1

    return attempt
