import gc
import json
from functools import cache

import numpy as np
import onnx
import pytest
import torch

from hwsearch.elastic import build
from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.elastify import elastify
from hwsearch.elastic.living import LIVING
from hwsearch.elastic.pytorch.cut import cut
from hwsearch.elastic.pytorch.module import read_module
from hwsearch.errors import InputError
from hwsearch.models.execution import run
from hwsearch.space import Choice, SearchSpace
from tests.elastic.miniature_modules import ResidualNet, VisionTransformer, image, trained

trained_once = cache(trained)


@cache
def analysed(module):
    return analyse(read_module(module, image()))


class Elastic:
    """An elastic model with one choice, as `cut` asks it."""

    def __init__(self, module, digest="0"):
        self.structure = analysed(module)
        self.group = next(g for g in self.structure.groups if g.kind == "inner")
        self.space = SearchSpace([Choice(self.group.name, (2, self.group.size))])
        self.digest = digest
        LIVING.add(self)

    def kept(self, arch):
        mask = np.arange(self.group.size) < arch[self.group.name]
        return {self.group.name: mask}, ()

    def onnx_model(self, arch):
        return build.sliced(self.structure, *self.kept(arch))


@pytest.fixture
def elastic():
    gc.collect()
    LIVING.clear()
    module = trained_once(ResidualNet)
    return module, Elastic(module)


def narrow(net):
    return net.space.architectures([{net.group.name: 2}])[0]


def test_the_elastic_model_in_memory_is_found(elastic):
    module, net = elastic
    sizes = [sum(p.numel() for p in cut(module, narrow(net), *rest).parameters())
             for rest in ((), (net,))]  # fmt: skip
    assert sizes[0] == sizes[1] < sum(p.numel() for p in module.parameters())


def test_of_several_elastic_models_that_of_the_weights_is_taken(elastic):
    module, net = elastic
    other = Elastic(trained(ResidualNet, seed=9), digest="1")
    assert cut(module, narrow(other)).state_dict().keys() == module.state_dict().keys()
    same = Elastic(module, digest="2")
    with pytest.raises(InputError, match="2 elastic models in memory"):
        cut(module, narrow(same))
    LIVING.clear()
    with pytest.raises(InputError, match="no elastic models in memory"):
        cut(module, narrow(net))


def test_an_exported_subnet_gives_the_weights_of_its_file(elastic, tmp_path):
    module, net = elastic
    arch = narrow(net)
    model = net.onnx_model(arch)
    bias = next(each for each in model.graph.initializer if each.name == "head.bias")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.ones(5, np.float32), "head.bias"))
    onnx.save(model, tmp_path / "model.onnx")
    card = {"architecture": arch.mapping, "precision": "fp32", "supernet": {"name": "gone"}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert torch.equal(cut(module, tmp_path, net).head.bias, torch.ones(5))
    with pytest.raises(InputError, match="'gone', which is no folder"):
        cut(module, tmp_path)
    (tmp_path / "card.json").write_text(json.dumps({**card, "precision": "int8"}))
    with pytest.raises(InputError, match="is int8; give its architecture"):
        cut(module, tmp_path, net)
    with pytest.raises(InputError, match="is no folder of an exported subnet"):
        cut(module, tmp_path / "absent", net)


@pytest.mark.parametrize("build_module", [ResidualNet, VisionTransformer])
def test_repaired_subnets_of_a_module_come_back_as_it(build_module, tmp_path):
    module = trained(build_module)
    pictures = torch.randn(96, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    net = elastify(
        read_module(module, image()), [{"x": pictures.numpy()}], out=tmp_path / "mine.elastic"
    )
    for arch in net.space.sample(3, seed=0):
        cut_module = cut(module, arch)
        (expected,) = run(net.onnx_model(arch), {"x": pictures.numpy()}).values()
        with torch.no_grad():
            found = cut_module(pictures).numpy()
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
        assert set(cut_module.state_dict()) <= set(module.state_dict())


def test_what_is_no_elastic_model_is_refused(elastic):
    module, net = elastic
    with pytest.raises(InputError, match="net is a str, no elastic model"):
        cut(module, narrow(net), "mine")
