import json

import pytest

from hwsearch import data
from hwsearch.blocks import BlockSpec
from hwsearch.errors import InputError
from hwsearch.tables import BlockLatency, LatencyTable, SubnetLatency, file_name, find_table


def conv(width, side=32):
    return BlockSpec(
        kind="conv",
        hyperparameters=(("act", "relu"), ("bias", True), ("rate", 0.25), ("width", width)),
        input_shape=(3, side, side),
    )


def table(**changes):
    subnet = SubnetLatency(
        architecture={"depth": 2, "act": "relu", "se": True, "rate": 0.25},
        latency_ms=1.25,
        low_ms=1.2,
        high_ms=1.3,
        ratio=2.5,
        ratio_low=2.4,
        ratio_high=2.6,
        purpose="validate",
    )
    given = {
        "supernet": "toy",
        "space": "0123456789abcdef",
        "device": "ort-cpu:threads=1",
        "slug": "ort-cpu-threads1",
        "fingerprint": {"threads": 1, "cpu": "any"},
        "created": "2026-01-31",
        "baseline_ms": 0.5,
        "overhead_ms": 0.1,
        "blocks": {
            conv(40): BlockLatency(latency_ms=0.4, count=3, spread_ms=0.01),
            conv(20): BlockLatency(latency_ms=0.2),
        },
        "subnets": (subnet,),
        "facts": {"method": "profile", "error": {"mape": 0.012}},
    }
    return LatencyTable(**{**given, **changes})


def damaged(change):
    """The table's text after a change of its JSON."""
    record = json.loads(table().to_json())
    change(record)
    return json.dumps(record)


def test_every_flipped_bit_is_found():
    content = table().to_json().encode()
    missed = []
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            LatencyTable.from_json(bytes(flipped))
        except InputError:
            continue
        missed.append((bit, bytes(flipped[bit // 8 - 10 : bit // 8 + 10])))
    assert missed == []


def test_one_without_a_digest_is_of_an_earlier_version():
    def unsealed(record):
        del record["sha256"]
        record["schema"] = 1

    assert LatencyTable.from_json(damaged(unsealed)) == table()
    with pytest.raises(InputError, match="'sha256' is missing"):
        LatencyTable.from_json(damaged(lambda record: record.pop("sha256")))


def test_a_file_gives_the_same_table_back(tmp_path):
    path = tmp_path / "new" / "folder" / "toy.json"
    table().save(path)
    assert LatencyTable.load(path) == table()
    assert [found.name for found in path.parent.iterdir()] == ["toy.json"]


def test_the_text_is_sorted_and_has_a_line_for_each_block_and_subnet():
    turned = table(blocks=dict(reversed(table().blocks.items())))
    assert turned.to_json() == table().to_json()
    lines = table().to_json().splitlines()
    assert sum('"kind": "conv"' in line for line in lines) == 2
    assert sum('"architecture"' in line for line in lines) == 1
    assert max(map(len, lines)) < 250


def test_numbers_survive_exactly():
    odd = table(overhead_ms=0.1 + 0.2, baseline_ms=1 / 3)
    again = LatencyTable.from_json(odd.to_json())
    assert (again.overhead_ms, again.baseline_ms) == (0.1 + 0.2, 1 / 3)
    architecture = again.subnets[0].architecture
    assert [type(architecture[name]) for name in ("depth", "se", "rate")] == [int, bool, float]


def test_adds_up_a_chain():
    assert table().latency_ms([conv(20), conv(40), conv(40)]) == pytest.approx(1.1)


def test_a_table_of_whole_subnets_only_needs_no_blocks():
    whole = table(blocks={}, overhead_ms=0.0)
    assert LatencyTable.from_json(whole.to_json()) == whole


def test_missing_specs_are_named_counted_and_given_a_command():
    wanted = [conv(40), *(conv(width) for width in (21, 22, 23, 24, 25)), conv(21)]
    assert table().missing(wanted) == [conv(width) for width in (21, 22, 23, 24, 25)]
    with pytest.raises(InputError) as caught:
        table().check_covers(wanted, "--only 'depth in 1,2'")
    text = str(caught.value)
    assert "lacks 5 block specs: conv(act=relu, bias=True, rate=0.25, width=21) on 3x32x32" in text
    assert "width=23" in text
    assert "width=24" not in text
    assert "and 2 more" in text
    command = "'hwsearch profile toy --device ort-cpu:threads=1 --only 'depth in 1,2''"
    assert command in text
    with pytest.raises(InputError, match="lacks 1 block"):
        table().latency_ms([conv(1)])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("other", "0123456789abcdef", None), "of supernet 'toy', not of 'other'"),
        (("toy", "ffff", None), "of search space '0123456789abcdef', not of 'ffff'"),
        (("toy", "0123456789abcdef", "openvino"), "of device 'ort-cpu:threads=1', not of"),
    ],
)
def test_refuses_to_serve_something_else(asked, said):
    table().check_made_for("toy", "0123456789abcdef", "ort-cpu:threads=1")
    table().check_made_for("toy", "0123456789abcdef")
    with pytest.raises(InputError, match=said) as caught:
        table().check_made_for(*asked, where="x.json")
    assert str(caught.value).startswith("x.json is a latency table of")
    assert "hwsearch profile" in str(caught.value)


def first_block(name, value):
    def change(record):
        record["blocks"][0][name] = value

    return damaged(change)


def entry(name, value):
    return damaged(lambda record: record.update({name: value}))


def without(*path):
    def change(record):
        for step in path[:-1]:
            record = record[step]
        del record[path[-1]]

    return damaged(change)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no latency table"),
        ("[1, 2]", "no 'format'"),
        ('{"trials": []}', "no 'format'"),
        (b"\x80\x04\x95pickle", "is no latency table"),
        ("[" * 100_000, "is no latency table"),
        (entry("schema", 3), "schema 3, and this version of hwsearch reads 1 and 2"),
        (entry("schema", None), "schema None"),
        (first_block("latency_ms", 0), "blocks line 1: 'latency_ms' is 0; it must be a finite"),
        (first_block("latency_ms", -0.5), "'latency_ms' is -0.5"),
        (first_block("latency_ms", float("nan")), "holds NaN"),
        (first_block("latency_ms", float("inf")), "holds Infinity"),
        (first_block("latency_ms", 10**400), "'latency_ms' is 1000"),
        (table().to_json().replace("0.4,", "1e999,"), "'latency_ms' is inf"),
        (first_block("latency_ms", "0.5"), "'latency_ms' is '0.5'"),
        (first_block("latency_ms", True), "'latency_ms' is True"),
        (without("blocks", 0, "latency_ms"), "'latency_ms' is missing"),
        (first_block("count", 0), "'count' is 0; it must be a whole number from 1 up"),
        (first_block("spread_ms", -1), "'spread_ms' is -1; it must be a finite number from 0"),
        (first_block("input_shape", [3, 0, 32]), r"'input_shape' is \[3, 0, 32\]"),
        (first_block("input_shape", 3), "'input_shape' is 3"),
        (first_block("hyperparameters", [1]), r"'hyperparameters' is \[1\]"),
        (first_block("hyperparameters", {"a": [1]}), "'hyperparameters' is"),
        (first_block("kind", ""), "'kind' is ''; it must be text"),
        (entry("blocks", {}), "'blocks' is {}; it must be a list of objects"),
        (entry("blocks", [1]), "'blocks' is"),
        (damaged(lambda r: r["blocks"].append(r["blocks"][0])), "twice"),
        (entry("baseline_ms", 0), "'baseline_ms' is 0"),
        (entry("overhead_ms", -1), "'overhead_ms' is -1"),
        (entry("supernet", 7), "'supernet' is 7"),
        (without("device"), "'device' is missing"),
        (entry("fingerprint", None), "'fingerprint' is None"),
        (damaged(lambda r: r["subnets"][0].update(low_ms=0)), "subnets line 1: 'low_ms' is 0"),
        (damaged(lambda r: r["subnets"][0].update(purpose="fun")), "'purpose' is 'fun'"),
    ],
)
def test_what_is_no_table_is_refused_with_the_entry(text, said):
    with pytest.raises(InputError, match=said) as caught:
        LatencyTable.from_json(text, "x.json")
    assert str(caught.value).startswith("x.json")


def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(InputError, match=r"no latency table.*hwsearch profile"):
        LatencyTable.load(tmp_path / "none.json")


def test_a_huge_file_is_refused_by_its_size(tmp_path, monkeypatch):
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(2**30)
    monkeypatch.setattr("pathlib.Path.read_bytes", lambda path: pytest.fail("it was read"))
    with pytest.raises(InputError, match="takes 1,024 MB"):
        LatencyTable.load(path)


def test_numbers_that_json_cannot_hold_are_not_written():
    with pytest.raises(ValueError, match="not JSON compliant"):
        table(overhead_ms=float("nan")).to_json()


def test_finds_the_users_own_before_what_ships(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path / "home"))
    (tmp_path / "shipped" / "latency_tables").mkdir(parents=True)
    monkeypatch.setattr(data, "files", lambda package: tmp_path / "shipped")
    name = file_name("toy", "ort-cpu-threads1")
    assert find_table("toy", "ort-cpu-threads1") is None
    for folder in ("shipped", "home"):
        path = tmp_path / folder / "latency_tables" / name
        table().save(path)
        assert find_table("toy", "ort-cpu-threads1") == path
    assert find_table("toy", "openvino") is None


def test_file_names_hold_nothing_odd():
    assert file_name("mine.nets:make", "openvino-threads1") == (
        "mine.nets-make@openvino-threads1.json"
    )
