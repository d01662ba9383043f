"""One call finds what is wrong with a family, and says it so that its author can mend it."""

import ast
import re
import unittest
from pathlib import Path

import pytest

import hwsearch.testing
from hwsearch.devices import load_device
from hwsearch.errors import HwsearchError
from hwsearch.supernets.supernet import Supernet
from hwsearch.testing import CHECKS, ContractError, Examined, check_supernet, onnx_checks
from tests.testing import families

CHAIN = "blocks_chain_to_the_network"
OWN = "blocks_own_every_parameter"
COSTS = "costs_are_counted_ones"
COUNTS = "onnx_counts_the_same"
# What each family breaks, which checks fail in its wake, and what is said of it alone.
BROKEN = {
    families.Nameless: (("declares_what_it_owes",), r"digest is 'version 1'; give 64 hex digits"),
    families.Blockless: (("declares_what_it_owes",), r"Blockless lacks blocks"),
    families.Padded: (("input_spec_is_plain",), r"crops to 8 x 8 pixels, but .* \(3, 6, 6\)"),
    families.ArrayShaped: (("input_spec_is_plain",), r"cannot be written as JSON .*int64"),
    families.Trained: (("subnets_build",), r"12 modules are in training mode .* subnet.eval\(\)"),
    families.Wide: (("subnets_build",), r"'stem.conv.weight' is torch.float64; weights are"),
    families.Crashing: (("subnets_build",), r"subnet\(arch\) raised IndexError: no more channels"),
    families.Overfull: (
        ("subnets_answer_as_promised",),
        r"has shape \(1, 4\) for 1 samples, but input_spec names 3 classes",
    ),
    families.Lenient: (
        ("space_reads_only_its_own",),
        r"option 'no-such-option' for choice 'width' is accepted; .* \(4, 6, 8\)",
    ),
    families.Redrawn: (
        ("equal_architectures_are_equal_networks",),
        r"asked for twice, its subnet has another 'head.linear.weight' the second time",
    ),
    families.Aliased: (
        ("memory_is_never_shared",),
        r"set to zero .* another 'stem.conv.weight': it shares memory with the supernet",
    ),
    families.SharedStatistics: (
        ("memory_is_never_shared",),
        r"'stem.bn.running_mean' shares memory with a subnet built before",
    ),
    families.Cached: (("memory_is_never_shared",), r"returns the same object twice"),
    families.ActiveSubnet: (
        ("memory_is_never_shared", "equal_architectures_are_equal_networks"),
        r"building other subnets changed its 'stem.bn.bias'",
    ),
    families.Seeded: (
        ("global_seed_is_untouched",),
        r"subnet\(arch\) draws from PyTorch's global generator; build on torch.device\('meta'\)",
    ),
    families.DeadChoice: (
        ("every_choice_matters",),
        r"choice 'colour' is active in .* it is 'red', and with 'green' inputs, outputs, MACs",
    ),
    families.Unconditional: (
        ("every_choice_matters",),
        r"choice 'layer2.kernel' is active in .*smallest\(\).* without effect: it is 1",
    ),
    families.Deaf: (("every_input_matters",), r"stay the same when input 'picture' changes"),
    families.Sociable: (
        ("samples_do_not_see_their_batch",),
        r"a sample alone and in a batch of 3 give outputs that differ",
    ),
    families.ForgottenNorms: (
        ("statistics_are_recalibrated",),
        r"3 of 3 norms .* not of the types in recalibrate \(first: 'stem.bn'\).* add BatchNorm2d",
    ),
    families.IdleNorm: (
        ("statistics_are_recalibrated",),
        r"recalibration needs at least one batch that reaches every norm",
    ),
    families.Rewritten: (
        ("statistics_are_recalibrated",),
        r"recalibration changes '.*conv.weight', which is no statistic",
    ),
    families.Gap: (
        (CHAIN, "onnx_agrees"),
        r"blocks stem, layer1, head, run one after another, give other",
    ),
    families.Misnamed: ((CHAIN, OWN, "onnx_agrees", COUNTS), r"there is no module 'classifier'"),
    families.Orphan: (
        (OWN, COSTS, COUNTS),
        r"parameter 'temperature' belongs to none of its blocks",
    ),
    families.DishonestShape: (
        ("block_inputs_are_honest",),
        r"block 'stem' says that it takes float32 of shape \(3, 12, 12\), but .* \(3, 6, 6\)",
    ),
    families.VagueSpec: (
        ("equal_specs_cost_the_same", "equal_specs_are_equal_modules"),
        r"3,888 MACs and 116 parameters, 'stem' of .* 7,776 and 232, but their specs are equal",
    ),
    families.SecretSlope: (
        ("equal_specs_are_equal_modules", "onnx_agrees"),
        r"'layer1' of .* have equal specs, but do something else with equal weights",
    ),
    families.Flattered: (
        (COSTS,),
        r"block 'head' is said to cost 11 MACs and 15 parameters, but its module counts 12 and 15",
    ),
    families.TwoFaced: (("onnx_agrees",), r"for 3 samples ONNX and PyTorch differ by 0\.\d+ "),
    families.BakedBatch: (
        ("onnx_agrees", COUNTS),
        r"ONNX model is right for batches of 2 samples alone",
    ),
    families.Einstein: ((COUNTS,), r"ONNX model counts 4,464 MACs, its subnet 4,476"),
}


@pytest.fixture(scope="module", autouse=True)
def _one_process_for_all():
    """The device is the real one, but started once."""

    class Kept:
        def __init__(self, device):
            self.run = device.run

        def close(self):
            pass

    device = load_device("ort-cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_checks, "load_device", lambda spec: Kept(device))
        yield
    device.close()


@pytest.fixture(scope="module")
def error_of():
    """What the call raises for a family; each is examined once."""
    errors = {}

    def get(family):
        if family not in errors:
            with pytest.raises(ContractError) as caught:
                check_supernet(family())
            errors[family] = caught.value
        return errors[family]

    return get


def test_a_sound_family_passes():
    assert check_supernet(families.Sound()) == {}


def test_what_does_not_apply_is_said():
    skipped = check_supernet(Supernet("plain", families.Plain()))
    assert set(skipped) == {
        CHAIN,
        OWN,
        "block_inputs_are_honest",
        "equal_specs_cost_the_same",
        "equal_specs_are_equal_modules",
    }
    assert set(skipped.values()) == {"blocks(arch) is None: no chain of blocks"}
    with pytest.raises(unittest.SkipTest, match="no chain of blocks"):
        CHECKS[CHAIN](families.Plain())


@pytest.mark.parametrize("family", BROKEN, ids=lambda family: family.__name__)
def test_a_broken_family_fails_with_what_is_wrong_with_it(family, error_of):
    checks, says = BROKEN[family]
    error = error_of(family)
    assert set(error.failed) == set(checks)
    assert re.search(says, str(error.failed[checks[0]]))
    assert all(name in str(error) and CHECKS[name].owed in str(error) for name in checks)


@pytest.mark.parametrize("family", BROKEN, ids=lambda family: family.__name__)
def test_its_message_is_said_of_no_other_family(family, error_of):
    for other, (checks, _) in BROKEN.items():
        said = re.search(BROKEN[family][1], str(error_of(other).failed.get(checks[0])))
        assert bool(said) == (other is family), other.__name__


def test_every_check_is_broken_by_a_family():
    assert {checks[0] for checks, _ in BROKEN.values()} == set(CHECKS)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ContractError, match="2 of 20 checks failed") as caught:
        check_supernet(families.ForgottenAndMore())
    assert set(caught.value.failed) == {"every_choice_matters", "statistics_are_recalibrated"}
    assert "choice 'colour'" in str(caught.value)
    assert "add BatchNorm2d" in str(caught.value)


def test_what_everything_needs_comes_first(error_of):
    assert "were not run" in str(error_of(families.Blockless))
    assert "were not run" not in str(error_of(families.Deaf))


def test_messages_tell_how_to_get_the_architecture(error_of):
    space = families.Crashing().space
    (arch,) = space.largest()
    assert f"architecture {arch.key} (space.largest()[0])" in str(error_of(families.Crashing))
    found = re.search(r"(\w{16}) \((space\.sample[^)]*\)\[\d\])\)", str(error_of(families.Gap)))
    assert eval(found[2], {"space": families.Gap().space}).key == found[1]


def test_a_family_in_place_of_its_network():
    class Family:
        def tiny(self):
            return families.Sound()

    with pytest.raises(ContractError, match=r"Family lacks space.*pass family.tiny\(\)"):
        check_supernet(Family())


def test_one_check_by_itself():
    CHECKS["every_choice_matters"](families.Sound())
    with pytest.raises(ContractError, match="choice 'colour'") as caught:
        CHECKS["every_choice_matters"](Examined(families.DeadChoice()))
    assert set(caught.value.failed) == {"every_choice_matters"}
    with pytest.raises(ContractError, match="lacks blocks"):
        CHECKS[CHAIN](families.Blockless())
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, HwsearchError)


def test_checks_explain_themselves():
    for name, check in CHECKS.items():
        assert check.name == name
        assert check.owed.endswith(".")
        assert len({other.owed for other in CHECKS.values()}) == len(CHECKS)


def test_no_test_runner_is_needed():
    for path in Path(hwsearch.testing.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            named = [alias.name for alias in getattr(node, "names", ())]
            assert "pytest" not in [*named, getattr(node, "module", "")]
