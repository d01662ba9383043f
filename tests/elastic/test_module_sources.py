import importlib.util
import json

import pytest
import safetensors.torch
import torch
from torch import nn

from hwsearch.elastic.pytorch.sources import load_module
from hwsearch.errors import InputError
from tests.elastic.miniature_modules import ResidualNet, image, trained

NAMED = "tests.elastic.named_modules"


def test_a_function_gives_module_and_inputs():
    found = load_module(f"{NAMED}:residual")
    assert isinstance(found.module, ResidualNet)
    assert found.inputs.shape == (1, 3, 16, 16)


def test_a_checkpoint_goes_to_the_function_or_into_its_module(tmp_path):
    module = trained(ResidualNet, seed=1)
    safetensors.torch.save_file(module.state_dict(), tmp_path / "weights.safetensors")
    checkpoint = str(tmp_path / "weights.safetensors")
    assert load_module(f"{NAMED}:takes_checkpoint", checkpoint).inputs == checkpoint
    loaded = load_module(f"{NAMED}:residual", checkpoint).module
    assert torch.equal(loaded.head.weight, module.head.weight)
    safetensors.torch.save_file({"head.weight": torch.zeros(5, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="keys missing"):
        load_module(f"{NAMED}:residual", str(tmp_path / "other.safetensors"))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("module_alone", "returned ResidualNet; it returns a torch.nn.Module and its example"),
        ("nothing", "returned NoneType"),
        ("fails", "ZeroDivisionError: division by zero"),
        ("absent", "has no 'absent'"),
    ],
)
def test_other_functions_are_refused(function, message):
    with pytest.raises(InputError, match=message):
        load_module(f"{NAMED}:{function}")


def test_a_torchvision_model_has_its_preprocessing():
    found = load_module("torchvision:squeezenet1_1", "random:3")
    assert found.inputs.shape == (1, 3, 224, 224)
    assert (found.preprocessing.resize, found.preprocessing.crop) == (256, 224)
    again = load_module("torchvision:squeezenet1_1", "random:3")
    other = load_module("torchvision:squeezenet1_1", "random:4")
    weights = [each.module.features[0].weight for each in (found, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_checkpoint_may_have_other_classes(tmp_path):
    from torchvision.models import squeezenet1_1

    module = squeezenet1_1(num_classes=7)
    torch.save({"state_dict": module.state_dict()}, tmp_path / "seven.pth")
    found = load_module("torchvision:squeezenet1_1", str(tmp_path / "seven.pth")).module
    assert found.classifier[1].out_channels == 7
    assert torch.equal(found.features[0].weight, module.features[0].weight)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision:resnet51", "unknown torchvision model 'resnet51'.*'resnet5"),
        ("hf:nowhere", "has no config.json"),
    ],
)
def test_unknown_names_are_refused(source, message):
    with pytest.raises(InputError, match=message):
        load_module(source)


@pytest.mark.skipif(importlib.util.find_spec("timm") is not None, reason="timm is installed")
def test_a_package_that_is_absent_is_named():
    with pytest.raises(InputError, match="pip install timm"):
        load_module("timm:resnet18")


@pytest.mark.slow
def test_a_timm_model_is_merged_and_has_its_preprocessing():
    pytest.importorskip("timm")
    found = load_module("timm:repvgg_a0", "random:0")
    convolutions = [each for each in found.module.modules() if isinstance(each, nn.Conv2d)]
    assert len(convolutions) == 22
    assert found.preprocessing.crop == 224


@pytest.mark.slow
def test_a_folder_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=32, max_position_embeddings=40, num_labels=3,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(tmp_path)
    found = load_module(f"hf:{tmp_path}")
    assert {name: tuple(each.shape) for name, each in found.inputs.items()} == dict.fromkeys(
        ("input_ids", "attention_mask", "token_type_ids"), (1, 38)
    )
    assert torch.equal(found.module.classifier.weight, model.classifier.weight)
    content = json.loads((tmp_path / "config.json").read_text())
    content["architectures"] = ["NoSuchModel"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="'NoSuchModel' is none of this version"):
        load_module(f"hf:{tmp_path}")


def test_example_images_are_the_same_each_time():
    assert torch.equal(image(), image())
