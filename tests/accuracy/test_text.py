"""Lines of text: tokens of one length, padding, labels, and what is refused."""

import json

import numpy as np
import pytest

from hwsearch import load_task
from hwsearch.accuracy.metric import TOP1, UNDECIDED
from hwsearch.accuracy.sample_shapes import sample_shapes
from hwsearch.errors import InputError
from hwsearch.supernets.interface import InputSpec, TensorSpec

tokenizers = pytest.importorskip("tokenizers")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "very"]
LINES = ["good film", "bad film", "very very good film", "film", "very bad", "good"]


def spec_of(length=8, names=("input_ids", "attention_mask", "token_type_ids"), **options):
    inputs = tuple(
        TensorSpec(name=n, shape=(length,), dtype="int64", high=len(WORDS)) for n in names
    )
    return InputSpec(inputs=inputs, **options)


@pytest.fixture
def folder(tmp_path):
    """A folder with a tokenizer that puts [CLS] before and [SEP] after the words."""
    model = tokenizers.models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As files of models do; neither is wanted here.
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=100)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def write(folder, lines, name="lines.txt"):
    path = folder / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"text:{path}"


def load(spec, input_spec=None, labels="optional", **options):
    return load_task(spec, input_spec or spec_of(), "any", labels=labels, **options)


def all_rows(task, name):
    splits = (task.calibration, task.search, task.report)
    return np.concatenate([split.inputs[name] for split in splits])


def test_lines_become_padded_tokens(folder):
    task = load(write(folder, LINES))
    assert task.metric is UNDECIDED
    assert task.warnings == ()
    assert [len(s) for s in (task.calibration, task.search, task.report)] == [2, 2, 2]
    rows = {tuple(row) for row in all_rows(task, "input_ids").tolist()}
    assert (2, 4, 6, 3, 0, 0, 0, 0) in rows
    assert (2, 7, 7, 4, 6, 3, 0, 0) in rows
    assert len(rows) == len(LINES)
    fed, targets = next(task.search.batches(2))
    assert list(fed) == ["input_ids", "attention_mask", "token_type_ids"]
    np.testing.assert_array_equal(fed["attention_mask"], fed["input_ids"] != 0)
    assert fed["input_ids"].dtype == np.int64
    assert targets.tolist() == [-1, -1]


def test_splits_are_the_same_every_time(folder):
    spec = write(folder, LINES)
    assert load(spec).search.digest == load(spec).search.digest


def test_labels(folder):
    lines = ["label\ttext", *(f"{'pos' if 'good' in line else 'neg'}\t{line}" for line in LINES)]
    spec = spec_of(classes=("neg", "pos"))
    task = load(write(folder, lines, "lines.tsv"), spec, "needed")
    assert task.metric is TOP1
    for split in (task.calibration, task.search, task.report):
        np.testing.assert_array_equal(split.targets, (split.inputs["input_ids"] == 4).any(axis=1))
    numbered = [f"{number % 2}\t{line}" for number, line in enumerate(LINES)]
    assert load(write(folder, numbered, "lines.tsv"), spec).labelled


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("good film", "line 7: 'good film' is not 'LABEL<TAB>TEXT'"),
        ("1\tgood\tfilm", "line 7: .* is not 'LABEL<TAB>TEXT'"),
        ("1\t ", "line 7: .* is not 'LABEL<TAB>TEXT'"),
        ("7\tgood", "line 7: class 7, but the supernet's classes are 0 to 1"),
        ("fine\tgood", "line 7: label 'fine' is no whole number and no class name"),
    ],
)
def test_lines_without_a_label_that_is_known(folder, line, says):
    lines = [*(f"0\t{each}" for each in LINES), line]
    spec = write(folder, lines, "lines.tsv")
    with pytest.raises(InputError, match=says):
        load(spec, spec_of(classes=("0", "1")))
    task = load(spec, spec_of(classes=("0", "1")), "unneeded")
    assert not task.labelled
    assert any("labels are left out" in each for each in task.warnings)


def test_labels_are_needed(folder):
    with pytest.raises(InputError, match=r"has no labels; write LABEL<TAB>TEXT .* ends in .tsv"):
        load(write(folder, LINES), labels="needed")


def test_long_lines_are_cut_and_blank_ones_left_out(folder):
    lines = [*LINES, "", "   ", "very " * 20 + "good", ""]
    task = load(write(folder, lines))
    assert "2 blank lines are left out" in task.warnings[0]
    assert "1 of 7 lines have more than 8 tokens and are cut there" in task.warnings[1]
    longest = [row for row in all_rows(task, "input_ids").tolist() if 0 not in row]
    assert longest == [[2, 7, 7, 7, 7, 7, 7, 3]]


def test_separators_of_unicode_and_windows(folder):
    task = load(write(folder, [*(f"{line}\r" for line in LINES), "good\u2028film\x0bbad"]))
    assert len(all_rows(task, "input_ids")) == 7
    assert [2, 4, 6, 5, 3, 0, 0, 0] in all_rows(task, "input_ids").tolist()


@pytest.mark.parametrize("content", [b"", b"\n\n  \n", b"one\ntwo\n"])
def test_too_little_text(folder, content):
    (folder / "few.txt").write_bytes(content)
    with pytest.raises(InputError, match="lines with text; at least 3 are needed"):
        load(f"text:{folder}/few.txt")


def test_no_text(folder):
    with pytest.raises(InputError, match=r"there is no text file '.*gone.txt'"):
        load(f"text:{folder}/gone.txt")
    (folder / "latin.txt").write_bytes("é\n".encode("latin1") * 9)
    with pytest.raises(InputError, match="is no text in UTF-8"):
        load(f"text:{folder}/latin.txt")


def test_tokenizer_beside_the_model_or_the_text(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    spec = write(elsewhere, LINES)
    with pytest.raises(InputError, match=r"there is no tokenizer.json in .*save_pretrained"):
        load(spec)
    assert load(spec, folder=folder).search
    (elsewhere / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is no tokenizer that can be read"):
        load(spec)


def test_tokenizer_of_another_model(folder):
    small = InputSpec(inputs=(TensorSpec(name="input_ids", shape=(8,), dtype="int64", high=5),))
    with pytest.raises(InputError, match="gives token 7, and the model knows 5; take the model's"):
        load(write(folder, LINES), small)


def test_without_the_package(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'hwsearch\[text\]'"):
        load(write(folder, LINES))


def test_one_input_of_any_name_and_no_mask(folder):
    one = InputSpec(inputs=(TensorSpec(name="x.1", shape=(8,), dtype="int32", high=8),))
    task = load(write(folder, LINES), one)
    assert task.search.inputs["x.1"].dtype == np.int32
    assert "no mask among its inputs" in task.warnings[0]


@pytest.mark.parametrize(
    "inputs",
    [
        (TensorSpec(name="image", shape=(3, 8, 8)),),
        (
            TensorSpec(name="input_ids", shape=(8,), dtype="int64"),
            TensorSpec(name="z", shape=(8,)),
        ),
        (TensorSpec(name="attention_mask", shape=(8,), dtype="int64"),),
        tuple(TensorSpec(name=n, shape=(8,), dtype="int64") for n in ("ids", "decoder_ids")),
    ],
)
def test_models_that_take_no_text(folder, inputs):
    with pytest.raises(InputError, match="text gives input_ids, attention_mask"):
        load(write(folder, LINES), InputSpec(inputs=inputs))


def test_positions(folder):
    task = load(write(folder, LINES), spec_of(names=("input_ids", "position_ids")))
    np.testing.assert_array_equal(task.search.inputs["position_ids"][0], np.arange(8))


class TestLength:
    @staticmethod
    def model(length="length"):
        from onnx import helper

        names = ("input_ids", "attention_mask")
        inputs = [helper.make_tensor_value_info(name, 7, ["n", length]) for name in names]
        node = helper.make_node("Identity", ["input_ids"], ["y"])
        out = helper.make_tensor_value_info("y", 7, ["n", length])
        return helper.make_model(helper.make_graph([node], "g", inputs, [out]))

    def test_covers_nearly_all_lines(self, folder):
        spec = write(folder, LINES)
        assert set(sample_shapes(spec, self.model()).values()) == {(8,)}
        longer = [*["very " * 18] * 10, *LINES]
        assert set(sample_shapes(write(folder, longer), self.model()).values()) == {(24,)}
        outlier = [*LINES * 50, "very " * 400]
        assert set(sample_shapes(write(folder, outlier), self.model()).values()) == {(8,)}

    def test_is_within_the_models(self, folder):
        (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 13}))
        spec = write(folder, [*["very " * 18] * 10, *LINES])
        assert set(sample_shapes(spec, self.model()).values()) == {(13,)}

    def test_that_the_model_fixes(self, folder):
        assert sample_shapes(write(folder, LINES), self.model(16)) == {}
