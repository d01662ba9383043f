"""What is said of files and folders that are given as a model and are none."""

import pytest

from hwsearch.supernets.model_names import why_no_model


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mine.pth", "holds weights and no network"),
        ("mine.SAFETENSORS", "MODULE:FUNCTION"),
        ("mine.tflite", "tf2onnx"),
        ("mine.xml", "the ONNX model that it was made from"),
    ],
)
def test_other_formats_say_what_to_give(name, said):
    assert said in why_no_model(name)


def test_folders_say_what_is_in_them(tmp_path):
    assert "without an ONNX model" in why_no_model(str(tmp_path))
    (tmp_path / "config.json").touch()
    assert f"hf:{tmp_path}" in why_no_model(str(tmp_path))
    (tmp_path / "b.onnx").touch()
    assert why_no_model(str(tmp_path)).endswith("b.onnx")


def test_a_file_without_a_known_ending_is_told_from_a_name(tmp_path):
    (tmp_path / "model").touch()
    assert "rename it to .onnx" in why_no_model(str(tmp_path / "model"))


@pytest.mark.parametrize("name", ["cifar10-resnet", "ofa-mbv3-w1.0", "module:function", "absent"])
def test_names_are_left_to_those_who_know_them(name):
    assert why_no_model(name) is None


def test_elastic_models_are_models(tmp_path):
    (tmp_path / "space.json").touch()
    assert why_no_model(str(tmp_path)) is None
    assert why_no_model("absent.elastic") is None
