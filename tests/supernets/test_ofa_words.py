"""Configurations in the words of others, both ways."""

import numpy as np
import pytest

from hwsearch import Objective, Optimizer, load_supernet
from hwsearch.errors import InputError
from hwsearch.supernets.zoo import load_family

MBV3 = {"ks": [7, 3] * 10, "e": [3, 4, 6, 3] * 5, "d": [2, 3, 4, 3, 2]}


@pytest.fixture(scope="module")
def space():
    return load_supernet("ofa-mbv3-w1.0", "random:0").space


@pytest.fixture(scope="module", params=["ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50"])
def full_space(request):
    return load_family(request.param).design.space


def test_counts_are_those_of_the_paper(space):
    assert space.size == (9**2 + 9**3 + 9**4) ** 5 == 21_758_655_492_572_485_851
    assert load_family("ofa-mbv3-w1.2").design.space.size == 25 * space.size
    assert load_family("ofa-proxyless-w1.3").design.space.size == 25 * 9 * space.size
    stages = [27 * (3**b + 3 ** (b + 1) + 3 ** (b + 2)) // 9 for b in (2, 2, 4, 2)]
    resnet = load_family("ofa-resnet50").design.space
    assert resnet.size == 25 * 2 * 9 * int(np.prod(stages, dtype=object))


def test_every_position_finds_its_block(space):
    arch = space.from_ofa([MBV3])[0]
    assert [arch[f"stage{s}.depth"] for s in range(1, 6)] == MBV3["d"]
    assert arch["stage1.block1.kernel"] == 7
    assert arch["stage1.block2.kernel"] == 3
    assert arch["stage3.block4.expand"] == 3
    assert arch["stage5.block2.expand"] == 4
    assert "stage1.block3.kernel" not in arch
    assert arch["resolution"] == 224


def test_there_and_back(full_space):
    archs = full_space.sample(50, seed=0)
    configs = full_space.to_ofa(archs)
    assert full_space.from_ofa(configs) == archs
    again = full_space.to_ofa(full_space.from_ofa(configs))
    assert again == configs
    assert all(type(v) in (int, float) for c in configs for v in c["e"])


def test_inactive_positions_hold_the_first_option(space):
    (config,) = space.to_ofa(space.from_ofa([{"ks": 7, "e": 6, "d": 2}]))
    assert config == {"ks": [7, 7, 3, 3] * 5, "e": [6, 6, 3, 3] * 5, "d": [2] * 5}
    assert "r" not in config


def test_long_and_short_forms_are_one(space):
    long = {"ks": [7, 7, 3, 3] * 5, "e": [6, 4, 3, 3] * 5, "d": [2] * 5}
    forms = [
        long,
        {"ks": [7, 7] * 5, "e": [6, 4] * 5, "d": [2] * 5},
        {"ks": "77" * 5, "e": "6433" * 5, "d": "22222"},
        {"ks": np.array(long["ks"]), "e": tuple(long["e"]), "d": 2},
        {**long, "wid": None, "r": [224]},
        {**long, "wid": 1.0, "r": 224},
        str({"wid": None, **long, "r": [224]}),
        {"ks": [7, 7, 5, 5] * 5, "e": [6, 4, 6, 6] * 5, "d": [2]},
    ]
    assert len(set(space.from_ofa(forms).ids)) == 1


def test_what_stands_at_inactive_positions_makes_no_difference(space):
    config = {"ks": [7] * 19 + [9], "e": 6, "d": 2}
    assert space.from_ofa([config]) == space.from_ofa([{**config, "ks": 7}])


def test_columns_of_dynast_files(space):
    text = str({"wid": None, **MBV3, "r": [224]})
    archs = space.from_ofa([text])
    (written,) = space.to_dynast(archs)
    assert written.startswith("{'wid': None, 'ks': [7, 3, 3, 3, ")
    assert written.endswith("'d': [2, 3, 4, 3, 2], 'r': [224]}")
    assert space.from_ofa([written]) == archs


def test_proxyless_has_one_depth_more():
    space = load_family("ofa-proxyless-w1.3").design.space
    config = {"ks": 5, "e": 4, "d": [2, 3, 4, 3, 2, 1]}
    archs = space.from_ofa([config, {**config, "d": config["d"][:5]}])
    assert archs.ids[0] == archs.ids[1]
    assert len(space.to_ofa(archs)[0]["ks"]) == 21
    assert space.to_ofa(archs)[0]["d"] == config["d"]
    with pytest.raises(InputError, match=r"ends in \[2\], not \[1\]"):
        space.from_ofa([{**config, "d": [2, 3, 4, 3, 2, 2]}])


def test_stem_depth_one_is_none():
    space = load_family("ofa-resnet50").design.space
    config = {"d": [1, 1, 1, 1, 1], "e": 0.25, "w": 1}
    archs = space.from_ofa([config, {**config, "d": [0, 1, 1, 1, 1]}, {**config, "d": 1}])
    assert len(set(archs.ids)) == 1
    assert space.to_ofa(archs)[0] == {"d": [0, 1, 1, 1, 1], "e": space_e(archs), "w": [1] * 6}


def space_e(archs):
    """0.25 at the blocks of depth 1, and the first option at the last block of each stage."""
    return [0.25, 0.25, 0.25, 0.2] * 2 + [0.25] * 5 + [0.2] + [0.25] * 3 + [0.2]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({**MBV3, "w": 2}, r"unknown entry of configuration 1 'w'; known: ks, e, d, r, wid"),
        ({"ks": 7, "e": 6}, r"configuration 1 has no 'd'"),
        ({**MBV3, "d": [2, 3]}, r"configuration 1, 'd' has 2 values; give 1 or 5"),
        ({**MBV3, "ks": [7] * 15}, r"'ks' has 15 values; give 1 or 14 or 20"),
        ({**MBV3, "ks": [9] + [7] * 19}, r"option of choice 'stage1.block1.kernel' 9; known: 3, "),
        ({**MBV3, "d": 5}, r"option of choice 'stage1.depth' 5"),
        ({**MBV3, "r": 225}, r"option of choice 'resolution' 225"),
        ({**MBV3, "r": [192, 224]}, r"'r' has 2 values"),
        ({**MBV3, "wid": 1.2}, r"'wid' is 1.2, but this supernet has width multiplier 1.0"),
        ({**MBV3, "e": "large"}, r"'e' is 'large'; give numbers"),
        ({**MBV3, "e": [None] * 20}, r"'e' holds None"),
        ("no dictionary", r"configuration 1 is no dictionary"),
        ("__import__('os').getcwd()", r"configuration 1 is no dictionary"),
        (7, r"configuration 1 is int, not a dictionary"),
    ],
)
def test_what_is_no_configuration(space, config, says):
    with pytest.raises(InputError, match=says):
        space.from_ofa([MBV3, config])


def test_evaluated_configurations_warm_a_search_up(space):
    """What others have measured need not be measured again, and is not proposed again."""
    archs = space.sample_spread(30, seed=1)
    known = space.from_ofa(space.to_ofa(archs))
    values = [{"top1": float(i.sum()) / 10, "macs": float(i.sum())} for i in known.indices]
    objectives = [Objective("top1", "max"), Objective("macs", "min")]
    optimizer = Optimizer(space, objectives, seed=0)
    optimizer.tell(known, values)
    asked = optimizer.ask(4)
    assert len(asked) == 4
    assert not set(asked.ids) & set(known.ids)
    assert len(optimizer.front()) > 0
