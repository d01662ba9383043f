"""Rules that leave only a part of a space."""

import pytest
from hypothesis import given, settings, strategies as st

from hwsearch.errors import InputError
from hwsearch.restriction import one_or_several, parse_freeze, parse_only, restricted, widened
from hwsearch.space import Choice, SearchSpace
from tests.spaces import spaces

SPACE = SearchSpace(
    [
        Choice("stage1.depth", (2, 3, 4)),
        Choice("stage1.block3.width", (16, 32), ("stage1.depth", (3, 4))),
        Choice("stage1.block4.width", (16, 32), ("stage1.depth", (4,))),
        Choice("stage1.block4.kernel", (3, 5), ("stage1.block4.width", (32,))),
        Choice("ratio", (0.2, 0.25, 0.35)),
        Choice("act", ("relu", "swish")),
        Choice("se", (False, True)),
        Choice("resolution", (128, 160, 192, 224)),
    ]
)


def options(space):
    return {choice.name: choice.options for choice in space.choices}


class TestRules:
    @pytest.mark.parametrize(
        ("freeze", "only", "left"),
        [
            (["stage1.depth=4"], [], {"stage1.depth": (4,)}),
            (["ratio=0.25"], [], {"ratio": (0.25,)}),
            (["act=relu", "se=True"], [], {"act": ("relu",), "se": (True,)}),
            (["act='swish'"], [], {"act": ("swish",)}),
            (["act=max", "resolution = min"], [], {"act": ("swish",), "resolution": (128,)}),
            (["*.width=max"], [], {"stage1.block3.width": (32,), "stage1.block4.width": (32,)}),
            ([], ["resolution in 192,160"], {"resolution": (160, 192)}),
            ([], ["resolution  in  min , 192"], {"resolution": (128, 192)}),
            ([], ["resolution in *"], {}),
            ([], ["r* in *", "ratio in 0.2,max"], {"ratio": (0.2, 0.35)}),
            # Each narrows what is left by those before it, and those of freeze come last.
            (["resolution=max"], ["resolution in 160,192"], {"resolution": (192,)}),
            (
                [],
                ["resolution in 128,160,192", "resolution in max,160"],
                {"resolution": (160, 192)},
            ),
        ],
    )
    def test_leave(self, freeze, only, left):
        assert options(restricted(SPACE, freeze, only)) == {**options(SPACE), **left}

    def test_an_option_as_it_is_written_comes_before_min_and_max(self):
        space = SearchSpace([Choice("pool", ("max", "avg")), Choice("c", (3, "3", "*", "x"))])
        assert options(restricted(space, ["pool=max"])) == {**options(space), "pool": ("max",)}
        for value, left in (("3", 3), ("'3'", "3"), ("'*'", "*")):
            assert options(restricted(space, [f"c={value}"]))["c"] == (left,)

    def test_a_name_that_looks_like_a_pattern_is_a_name(self):
        space = SearchSpace([Choice("block[1]", (1, 2)), Choice("block1", (1, 2))])
        assert options(restricted(space, ["block[1]=2"])) == {"block[1]": (2,), "block1": (2,)}
        assert options(restricted(space, ["block[[]1]=2"])) == {"block[1]": (2,), "block1": (1, 2)}

    def test_patterns_heed_case(self):
        with pytest.raises(InputError, match=r"'Stage1.\*'"):
            restricted(SPACE, ["Stage1.*=max"])

    def test_choices_that_cannot_become_active_are_left_out(self):
        left = restricted(SPACE, ["stage1.depth=2", "stage1.block4.width=32"])
        assert [name for name in left.names if name.startswith("stage1")] == ["stage1.depth"]
        left = restricted(SPACE, ["stage1.block4.width=16"])
        assert "stage1.block4.kernel" not in left.names
        assert restricted(SPACE, ["stage1.depth=3"]).choices[1].active == ("stage1.depth", (3,))

    def test_without_rules_it_is_the_space_itself(self):
        assert restricted(SPACE) is SPACE

    @pytest.mark.parametrize(
        ("freeze", "only", "message"),
        [
            (["stage1.depht=2"], [], r"'stage1.depht=2': 'stage1.depht'.*mean 'stage1.depth'\?"),
            (["stage9.*=max"], [], r"unknown choice in rule 'stage9.\*=max'.*known: stage1.depth"),
            (
                ["ratio=0.3"],
                [],
                r"choice 'ratio' in rule 'ratio=0.3': '0.3'; known: 0.2, 0.25.*Did",
            ),
            (["act=rely"], [], r"'act'.*'rely'; known: relu, swish. Did you mean 'relu'"),
            (["se=1"], [], r"'se'.*'1'; known: False, True"),
            (["resolution=*"], [], r"leaves every option; write 'only resolution in \*'"),
            ([], ["resolution in 160,300"], r"'resolution' in rule .*: '300'; known: 128, 160"),
            ([], ["resolution in "], r"not of the form GLOB in V1,V2"),
            ([], ["resolution in ,160"], r"'resolution' in rule .*: ''"),
            (["stage1.*=3"], [], r"choice 'stage1.block3.width' in rule 'stage1.\*=3': '3'"),
            (
                ["resolution=224"],
                ["resolution in 128,160"],
                r"'resolution=224' leaves nothing of choice 'resolution': the rules before it "
                r"leave 128, 160 of its options 128, 160, 192, 224",
            ),
            (["resolution in 160"], [], r"freeze rule.*GLOB=VALUE.*by an 'only' rule"),
            ([], ["resolution=160"], r"only rule.*GLOB in V1,V2.*by a 'freeze' rule"),
            (["=3"], [], "not of the form GLOB=VALUE"),
            ([], [" in 3"], "not of the form GLOB in V1,V2"),
            ([3], [], "freeze rule 3 is no text"),
        ],
    )
    def test_refused(self, freeze, only, message):
        with pytest.raises(InputError, match=message):
            restricted(SPACE, freeze, only)

    def test_parsed(self):
        assert parse_freeze(" a.* = 3=4 ").values == ("3=4",)
        assert parse_freeze("a.*=3").glob == "a.*"
        rule = parse_only("a in 1, 2,max")
        assert (rule.glob, rule.values) == ("a", ("1", "2", "max"))

    def test_one_text_is_one_rule(self):
        assert one_or_several("a=1") == ("a=1",)
        assert one_or_several(None) == ()
        assert one_or_several(["a=1", "b=1"]) == ("a=1", "b=1")


class TestDefaults:
    DEFAULTS = {"resolution": 224, "se": True}  # noqa: RUF012

    def test_stay_where_no_rule_mentions_them(self):
        left = options(restricted(SPACE, ["act=relu"], defaults=self.DEFAULTS))
        assert (left["resolution"], left["se"], left["act"]) == ((224,), (True,), ("relu",))
        assert options(restricted(SPACE, defaults=self.DEFAULTS))["resolution"] == (224,)

    @pytest.mark.parametrize(
        ("freeze", "only", "resolutions"),
        [
            ([], ["resolution in 160,192"], (160, 192)),
            ([], ["resolution in *"], (128, 160, 192, 224)),
            (["resolution=160"], [], (160,)),
            (["*=min"], [], (128,)),
        ],
    )
    def test_a_rule_opens_them(self, freeze, only, resolutions):
        left = options(restricted(SPACE, freeze, only, self.DEFAULTS))
        assert left["resolution"] == resolutions

    def test_one_that_is_no_choice_is_of_no_account_to_others(self):
        with pytest.raises(InputError, match="300"):
            restricted(SPACE, defaults={"resolution": 300})


class TestRestrict:
    def test_options_keep_their_order_and_spelling(self):
        assert options(SPACE.restrict({"stage1.depth": [4.0, 2]}))["stage1.depth"] == (2, 4)

    @pytest.mark.parametrize(
        ("left", "message"),
        [
            ({"depth": [1]}, "unknown choice 'depth'"),
            ({"act": ["gelu"]}, "unknown option of choice 'act' 'gelu'; known: relu, swish"),
            ({"act": []}, "choice 'act': there are no options"),
            ({"stage1.depth": [2], "stage1.block4.width": [7]}, "'stage1.block4.width' 7"),
        ],
    )
    def test_refuses(self, left, message):
        with pytest.raises(InputError, match=message):
            SPACE.restrict(left)

    def test_a_subclass_stays_one(self):
        class Own(SearchSpace):
            def derived(self, choices):
                return Own(choices)

        own = Own(SPACE.choices)
        assert type(own.restrict({"act": ["relu"]})) is Own
        assert type(restricted(own, ["act=relu"])) is Own
        assert type(SPACE.restrict({})) is SearchSpace


@st.composite
def ruled(draw):
    """A random space, rules, and the options that they leave by a plain reading of the rules."""
    space = draw(spaces())
    left = {choice.name: list(choice.options) for choice in space.choices}
    only, freeze = [], []
    for _ in range(draw(st.integers(0, 3))):
        choice = draw(st.sampled_from(space.choices))
        kept = [o for o in choice.options if "," not in repr(o) and draw(st.booleans())]
        if kept:
            only.append(f"{choice.name} in {','.join(map(repr, kept))}")
            left[choice.name] = [o for o in left[choice.name] if o in kept]
    for _ in range(draw(st.integers(0, 2))):
        end = draw(st.sampled_from(["min", "max"]))
        if draw(st.booleans()):
            choice = draw(st.sampled_from(space.choices))
            freeze.append(f"{choice.name}={draw(st.sampled_from(choice.options))!r}")
            option = freeze[-1].partition("=")[2]
            left[choice.name] = [o for o in left[choice.name] if repr(o) == option]
        elif not {"min", "max"} & {o for c in space.choices for o in c.options}:
            freeze.append(f"c*={end}")
            position = 0 if end == "min" else -1
            left = {name: [options[position]] if options else [] for name, options in left.items()}
    return space, freeze, only, left


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(ruled())
def test_what_is_left_are_the_architectures_that_satisfy_the_rules(case):
    space, freeze, only, left = case
    if not all(left.values()):
        with pytest.raises(InputError, match="leaves nothing"):
            restricted(space, freeze, only)
        return
    part = restricted(space, freeze, only)
    satisfying = [
        arch
        for arch in space.enumerate(1000)
        if all(any(o is option for o in left[name]) for name, option in arch.items())
    ]
    found = part.enumerate(1000)
    assert part.size == len(found) == len(satisfying)
    assert {arch.key: dict(arch) for arch in found} == {a.key: dict(a) for a in satisfying}
    assert space.architectures(found).ids == found.ids
    assert widened(found, space) == space.architectures(found)
    assert set(part.architectures(satisfying).ids) == set(found.ids)
    assert part.largest().ids[0] in {arch.key for arch in satisfying}
    assert set(part.sample(20, seed=0).ids) <= {arch.key for arch in satisfying}


def test_an_architecture_of_another_space_cannot_be_widened():
    other = SearchSpace([Choice("width", (1, 2))])
    with pytest.raises(InputError, match="unknown choice 'width'"):
        widened(other.smallest(), SPACE)
