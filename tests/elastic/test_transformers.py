"""Folders of the package transformers: subnets are exact, or it is said why there are none."""

import pytest
import torch

from hwsearch.elastic.analysis.structure import analyse
from hwsearch.elastic.pytorch.module import read_module
from hwsearch.elastic.pytorch.sources import load_module
from hwsearch.errors import InputError
from tests.elastic.removal import difference, kept_units

pytestmark = pytest.mark.slow
LAYERS = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
}  # fmt: skip
TEXT = {"vocab_size": 99, "max_position_embeddings": 40, **LAYERS}
T5 = {"vocab_size": 99, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
GPT2 = {"vocab_size": 99, "n_positions": 40, "n_embd": 32, "n_layer": 2, "n_head": 4}
IMAGE = {"image_size": 32, "patch_size": 8, **LAYERS}
DISTILBERT = {
    "vocab_size": 99, "max_position_embeddings": 40, "dim": 32, "n_layers": 2, "n_heads": 4,
    "hidden_dim": 64,
}  # fmt: skip
# Class of the model -> class of its configuration, arguments, numbers of heads and ffn groups.
EXACT = {
    "RobertaForSequenceClassification": ("RobertaConfig", TEXT, 2, 2),
    "DistilBertForSequenceClassification": ("DistilBertConfig", DISTILBERT, 2, 2),
    "ViTForImageClassification": ("ViTConfig", IMAGE, 2, 2),
    "T5EncoderModel": ("T5Config", T5, 1, 2),  # its position bias ties the heads of all layers
    "GPT2LMHeadModel": ("GPT2Config", GPT2, 2, 2),
}


def saved(folder, model, config, **arguments):
    """Save a model with random weights; return its source."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    module = getattr(transformers, model)(getattr(transformers, config)(**arguments))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    module.save_pretrained(folder)
    return f"hf:{folder}"


@pytest.mark.parametrize("model", EXACT)
def test_subnets_are_exact(tmp_path, model):
    config, arguments, heads, ffn = EXACT[model]
    found = load_module(saved(tmp_path, model, config, **arguments))
    structure = analyse(read_module(found.module, found.inputs))
    kinds = [group.kind for group in structure.groups]
    assert (kinds.count("heads"), kinds.count("ffn")) == (heads, ffn)
    assert difference(structure, kept_units(structure.groups)) < 1e-5


@pytest.mark.parametrize(
    ("model", "config", "arguments", "message"),
    [
        ("T5ForConditionalGeneration", "T5Config", T5, "an encoder with a decoder; give its enc"),
        (
            "CLIPModel",
            "CLIPConfig",
            {"text_config": TEXT, "vision_config": IMAGE},
            "takes texts and images together; return one of its parts",
        ),
    ],
)
def test_several_models_in_one_are_refused(tmp_path, model, config, arguments, message):
    source = saved(tmp_path, model, config, **arguments)
    with pytest.raises(InputError, match=message):
        load_module(source)
