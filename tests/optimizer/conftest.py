import pytest


@pytest.fixture(autouse=True)
def _quick_linas(monkeypatch):
    """LINAS as it is, with a tenth of its inner search and few settings of its predictors."""
    monkeypatch.setattr("hwsearch.optimizer.linas.GENERATIONS", 10)
    monkeypatch.setattr("hwsearch.optimizer.linas._RIDGE", {"alpha": [0.1, 1.0]})
    monkeypatch.setattr("hwsearch.optimizer.linas._SVR", {"C": [1.0, 10.0]})
