import subprocess
import sys

import numpy as np
import pytest

from hwsearch.errors import InputError
from hwsearch.prediction import Predictor
from hwsearch.prediction.trees import TreeModel
from tests.optimizer.problems import elastic_space

SPACE = elastic_space(2)


def jagged(archs):
    """A cost in steps: nothing that adds up."""
    return np.floor(archs.indices[:, :4].sum(axis=1) / 3.0) + (archs.indices[:, 0] == 2) * 2.0


@pytest.fixture(scope="module")
def fitted():
    pytest.importorskip("xgboost")
    archs = SPACE.sample_distinct(400, 0)
    return Predictor(SPACE, "trees").fit(archs, jagged(archs))


def test_learn_what_does_not_add_up(fitted):
    asked = SPACE.sample_distinct(500, 1)
    known = SPACE.sample_distinct(400, 0)
    linear = Predictor(SPACE, "linear").fit(known, jagged(known))
    off = [np.abs(model.predict_mean(asked) - jagged(asked)).mean() for model in (fitted, linear)]
    assert off[0] < 0.6 * off[1]


def test_are_the_same_each_time(fitted):
    archs, asked = SPACE.sample_distinct(400, 0), SPACE.sample(50, 1)
    again = Predictor(SPACE, "trees").fit(archs, jagged(archs))
    assert np.array_equal(fitted.predict(asked), again.predict(asked))


def test_are_saved_as_json_and_widened(fitted, tmp_path):
    fitted.save(tmp_path / "toy")
    loaded, asked = Predictor.load(tmp_path / "toy"), SPACE.sample(50, 1)
    assert np.array_equal(loaded.predict(asked), fitted.predict(asked))
    mean, deviation = loaded.widen(2.0).predict(asked)
    assert np.array_equal(mean, fitted.predict(asked)[0])
    assert deviation == pytest.approx(2.0 * fitted.predict(asked)[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trees": np.frombuffer(b"{}", np.uint8)}, "'trees' are no trees"),
        ({"trees": np.frombuffer(b"[1", np.uint8)}, "'trees' are no trees"),
        ({"trees": np.array(["{}"])}, "'trees' is of type"),
        ({"numbers": np.array([0.0, 1.0, 1.0, 3.0])}, "columns, not 3"),
        ({"numbers": np.array([0.0, 0.0, 1.0, 16.0])}, "'numbers' are"),
        ({"numbers": np.array([np.nan, 1.0, 1.0, 16.0])}, "'numbers' .* finite numbers"),
    ],
)
def test_what_strangers_send_is_refused(fitted, changes, message):
    state = {**fitted._surrogate.state(), **changes}
    with pytest.raises(InputError, match=message):
        TreeModel.from_state(state)


def test_without_xgboost_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    archs = SPACE.sample_distinct(9, 0)
    with pytest.raises(InputError, match=r"needs XGBoost; install it by pip install 'hwsearch\["):
        Predictor(SPACE, "trees").fit(archs, np.arange(9.0))


def test_heavy_libraries_are_left_out_until_they_are_needed():
    code = (
        "import sys, hwsearch; hwsearch.Predictor; "
        "print([n for n in ('xgboost', 'sklearn', 'torch', 'pandas') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
