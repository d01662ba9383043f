"""What a network that writes its ONNX models itself owes, and what is said where it fails."""

import re

import numpy as np
import pytest
from onnx import helper
from sliced_network import SlicedSupernet

from hwsearch.space import Choice, SearchSpace
from hwsearch.supernets.supernet import Supernet
from hwsearch.testing import CHECKS, ONNX_CHECKS, ContractError, Examined, check_supernet


class Countless(SlicedSupernet):
    macs = None


class Fixed(SlicedSupernet):
    def onnx_model(self, arch):
        model = super().onnx_model(arch)
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
        return model


class Renamed(SlicedSupernet):
    def onnx_model(self, arch):
        model = super().onnx_model(arch)
        model.graph.node.append(helper.make_node("Identity", ["logits"], ["other"]))
        model.graph.output[0].name = "other"
        return model


class Drawn(SlicedSupernet):
    def onnx_model(self, arch):
        model = super().onnx_model(arch)
        model.graph.doc_string = str(np.random.default_rng().random())
        return model


class Flattered(SlicedSupernet):
    def macs(self, archs):
        return super().macs(archs) - 1


class Misnamed(SlicedSupernet):
    def named_weights(self, model):
        return dict(list(super().named_weights(model).items())[1:])


class WrongZeros(SlicedSupernet):
    def _zeroed(self, arch):
        model = super()._zeroed(arch)
        del model.graph.node[-1].attribute[:]
        model.graph.node[-1].attribute.append(helper.make_attribute("transB", 1))
        model.graph.node[-1].attribute.append(helper.make_attribute("alpha", 1.01))
        return model


class Regrafted(SlicedSupernet):
    def _sliced(self, arch, *, repaired):
        model = super()._sliced(arch, repaired=repaired)
        if repaired:
            model.graph.node[1].op_type = "Sigmoid"
        return model


class AlwaysRepaired(SlicedSupernet):
    """The whole model is not the given one."""

    def onnx_model(self, arch):
        model = super().onnx_model(arch)
        model.graph.node[-1].attribute.append(helper.make_attribute("alpha", 0.5))
        return model

    def reference_models(self, arch):
        return self.onnx_model(arch), super().reference_models(arch)[1]


class DeadChoice(SlicedSupernet):
    def __init__(self):
        super().__init__()
        self.space = SearchSpace([*self.space.choices, Choice("colour", ("red", "green"))])


class Sociable(SlicedSupernet):
    def onnx_model(self, arch):
        model = super().onnx_model(arch)
        model.graph.node[-1].output[0] = "scores"
        mean = helper.make_node("ReduceMean", ["scores"], ["mean"], axes=[0], keepdims=1)
        model.graph.node.extend([mean, helper.make_node("Sub", ["scores", "mean"], ["logits"])])
        return model

    reference_models = None


BROKEN = {
    Countless: ("declares_what_it_owes", r"macs is None; give a method that takes arch"),
    Fixed: ("models_are_written", r"the first axis of 'image' is no symbol"),
    Renamed: ("models_are_written", r"has inputs and outputs \(\['image'\], \['other'\]\)"),
    Drawn: ("equal_architectures_are_equal_files", r"has other bytes the second time"),
    Flattered: ("costs_are_those_of_the_model", r"macs are said to be [\d,]+, but its model"),
    Misnamed: ("costs_are_those_of_the_model", r"named_weights\(model\) holds [\d,]+ numbers"),
    WrongZeros: ("slices_are_the_given_model", r"given model with zeros differ by 0\.\d+"),
    Regrafted: ("slices_are_the_given_model", r"before repair its model is another graph"),
    DeadChoice: ("every_choice_matters", r"choice 'colour' is active"),
    Sociable: ("samples_do_not_see_their_batch", r"a sample alone and in a batch of 3"),
}


@pytest.fixture(scope="module")
def error_of():
    errors = {}

    def get(network):
        if network not in errors:
            with pytest.raises(ContractError) as caught:
                check_supernet(network())
            errors[network] = caught.value
        return errors[network]

    return get


def test_a_sound_network_passes():
    assert check_supernet(SlicedSupernet()) == {}
    assert check_supernet(Supernet("sliced", SlicedSupernet())) == {}


@pytest.mark.parametrize("network", BROKEN, ids=lambda network: network.__name__)
def test_a_broken_network_fails_with_what_is_wrong_with_it(network, error_of):
    check, says = BROKEN[network]
    error = error_of(network)
    assert check in error.failed
    assert re.search(says, str(error.failed[check]))
    assert ONNX_CHECKS[check].owed in str(error)


def test_the_largest_architecture_is_the_given_model():
    with pytest.raises(ContractError, match="and the given model differ by"):
        ONNX_CHECKS["largest_is_the_given_model"](AlwaysRepaired())


def test_checks_of_modules_do_not_apply():
    with pytest.raises(ContractError, match="no PyTorch modules"):
        CHECKS["memory_is_never_shared"](Examined(SlicedSupernet()))
