import json
import shutil

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.prediction import Predictor
from hwsearch.prediction.folder import CARD, PARAMETERS, packed_arrays, unpacked_arrays
from hwsearch.prediction.predictor import find_predictor, load_predictor
from hwsearch.space import Choice, SearchSpace
from tests.optimizer.problems import Tabular, elastic_space

SPACE = elastic_space(3)
PARAMETRIC = ["linear", "additive", "pairwise"]


def fitted(name="linear", space=SPACE):
    known = space.sample_distinct(60, 0)
    return Predictor(space, name).fit(known, Tabular(space).values(known)["quality"])


@pytest.fixture
def folder(tmp_path):
    fitted().save(tmp_path / "toy", {"objective": "quality"})
    return tmp_path / "toy"


@pytest.mark.parametrize("name", PARAMETRIC)
def test_a_saved_predictor_predicts_the_same(tmp_path, name):
    predictor, archs = fitted(name), SPACE.sample(300, 1)
    predictor.save(tmp_path / "toy", {"objective": "quality"})
    loaded = Predictor.load(tmp_path / "toy")
    assert loaded.space == SPACE
    assert loaded.facts == {"objective": "quality"}
    assert np.array_equal(loaded.predict(archs), predictor.predict(archs))
    assert np.allclose(loaded.predict_mean(archs), predictor.predict(archs)[0], rtol=1e-12)
    loaded.save(tmp_path / "again")
    for file in (CARD, PARAMETERS):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "toy" / file).read_bytes()


@pytest.mark.parametrize("name", PARAMETRIC)
def test_a_part_of_the_space_is_predicted_as_in_the_whole(tmp_path, name):
    predictor = fitted(name)
    predictor.save(tmp_path / "toy")
    depth, *others = SPACE.choices
    part = SPACE.restrict({depth.name: depth.options[:1], others[0].name: others[0].options[1:2]})
    archs = part.sample(50, 0)
    mean, deviation = load_predictor(tmp_path / "toy", part).predict(archs)
    same = SPACE.architectures(archs)
    assert mean == pytest.approx(predictor.predict(same)[0])
    assert deviation == pytest.approx(predictor.predict(same)[1])


def test_another_space_is_refused_with_the_first_difference(folder):
    first, *rest = SPACE.choices
    longer = Choice(first.name, (*first.options, 99), first.active)
    with pytest.raises(InputError, match=rf"{first.name!r} at .* only, not at 99"):
        load_predictor(folder, SearchSpace([longer, *rest]))
    with pytest.raises(InputError, match="it knows no choice 'new'"):
        load_predictor(folder, SearchSpace([*SPACE.choices, Choice("new", (1, 2))]))
    lacking = SearchSpace(SPACE.choices[:-1])
    with pytest.raises(InputError, match=f"with choice {SPACE.names[-1]!r} .* has none"):
        load_predictor(folder, lacking)


def rewritten(folder, **changes):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))


def spoil_columns(folder, columns):
    from hwsearch.prediction.folder import read_folder, write_folder

    _, space, state, _ = read_folder(folder)
    write_folder(folder, "linear", space, {**state, "columns": columns}, {})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: shutil.rmtree(f), "has no card.json"),
        (lambda f: (f / CARD).write_text("{"), "card.json cannot be read"),
        (lambda f: (f / CARD).write_text("[" * 100_000), "card.json cannot be read"),
        (lambda f: (f / CARD).write_text("[1]"), "has no 'format'"),
        (lambda f: rewritten(f, schema=2), "has schema 2, and this version"),
        (lambda f: rewritten(f, space={"choices": [{}]}), "no(t the)? JSON of a search space"),
        (lambda f: rewritten(f, surrogate="magic"), "unknown surrogate 'magic'"),
        (lambda f: rewritten(f, surrogate="gaussian-process"), "cannot be saved"),
        (lambda f: rewritten(f, parameters_sha256="0"), "is not the one of its card"),
        (lambda f: (f / PARAMETERS).unlink(), "is damaged: .*parameters.npz"),
        (lambda f: (f / PARAMETERS).write_bytes(b"PK"), "is damaged: .*zip"),
        (lambda f: spoil_columns(f, np.ones((3, 4))), "is damaged"),
        (lambda f: spoil_columns(f, np.full((3, 4), np.nan)), "'columns' .* finite numbers"),
        (lambda f: spoil_columns(f, np.array(["a"])), "'columns' is of type"),
    ],
)
def test_files_of_strangers_are_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(InputError, match=message):
        load_predictor(folder, SPACE)


def test_the_users_own_comes_before_what_ships(tmp_path, monkeypatch):
    monkeypatch.setenv("HWSEARCH_HOME", str(tmp_path))
    assert find_predictor("my/net", "top1") is None
    fitted().save(tmp_path / "predictors" / "my-net" / "top1")
    assert find_predictor("my/net", "top1") == tmp_path / "predictors" / "my-net" / "top1"


def test_what_keeps_its_rows_is_not_saved(tmp_path):
    with pytest.raises(InputError, match=r"keeps the rows .* fit one of linear"):
        fitted("gaussian-process").save(tmp_path / "toy")
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize("name", PARAMETRIC)
def test_deviations_are_widened_until_the_next_fit(name):
    predictor, archs = fitted(name), SPACE.sample(100, 1)
    mean, deviation = predictor.predict(archs)
    predictor.predict_mean(archs)
    wider_mean, wider = predictor.widen(1.5).predict(archs)
    assert np.array_equal(wider_mean, mean)
    assert wider == pytest.approx(1.5 * deviation)
    assert np.array_equal(fitted(name).predict(archs)[1], deviation)
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="give a factor above 0"):
            predictor.widen(wrong)


def test_what_is_packed_is_nothing_but_the_arrays():
    arrays = {"weights": np.arange(3.0), "names": np.array(["a", "b"])}
    assert sorted(unpacked_arrays(packed_arrays(arrays))) == ["names", "weights"]
    with pytest.raises(ValueError, match="'names' holds objects"):
        packed_arrays({"names": np.array([{}], dtype=object)})
