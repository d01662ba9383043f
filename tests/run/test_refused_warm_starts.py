"""Earlier runs that a search refuses to start from."""

import shutil
import tomllib

import pytest
import tomli_w

import tests.run.search_parts as parts
from hwsearch.choices import Choice
from hwsearch.errors import InputError
from hwsearch.run.value_sources.warm_starts import first_difference
from hwsearch.space import SearchSpace
from tests.run.warm_start_parts import files, search, uneven, use

RENAMED = "tests.run.warm_start_parts:renamed"
pytestmark = pytest.mark.usefixtures("quick_infer")


@pytest.fixture
def device(monkeypatch):
    """The second device."""
    return use(monkeypatch, parts.InProcess(uneven))


class TestRefused:
    """Nothing is written, and the run that was given stays as it is."""

    @pytest.fixture(autouse=True)
    def _unchanged(self, first, tmp_path):
        before = files(first.folder)
        yield
        assert files(first.folder) == before
        assert not (tmp_path / "run").exists()

    def given(self, first, tmp_path, change):
        """A copy of the run with another config."""
        folder = shutil.copytree(first.folder, tmp_path / "given")
        path = folder / "config.toml"
        content = tomllib.loads(path.read_text())
        change(content)
        path.write_text(tomli_w.dumps(content))
        return folder

    def test_another_space_with_the_first_difference(self, first, device, tmp_path):
        def change(content):
            space = content["recorded"]["full_space"]
            content["recorded"]["full_space"] = space.replace("[8, 16]", "[8, 24]", 1)

        folder = self.given(first, tmp_path, change)
        with pytest.raises(
            InputError,
            match=r"of another search space: choice 'stage2.width' has the options 8, 24 there, "
            r"and 8, 16 here",
        ):
            search(tmp_path / "run", warm_start=folder)

    def test_another_space_of_a_run_that_says_nothing_of_its_own(self, first, device, tmp_path):
        folder = self.given(first, tmp_path, lambda content: content["recorded"].pop("full_space"))
        with pytest.raises(
            InputError, match=r"of another search space: unknown choice 'stage1.width'"
        ):
            search(
                tmp_path / "run",
                net="tests.run.image_parts:network",
                data="tests.run.image_parts:arrays",
                freeze=["resolution=12"],
                warm_start=folder,
            )

    def test_other_weights(self, first, device, tmp_path):
        with pytest.raises(InputError, match=r"weights=\w+ there is weights=\w+ here.*evidence"):
            search(tmp_path / "run", checkpoint="1", warm_start=first.folder)

    def test_other_data(self, first, device, monkeypatch, tmp_path):
        monkeypatch.setitem(parts.SIZES, "search", 100)
        with pytest.raises(InputError, match=r"samples=160@\w+ there is samples=100@\w+ here"):
            search(tmp_path / "run", warm_start=first.folder)

    def test_another_precision(self, first, monkeypatch, tmp_path):
        use(monkeypatch, parts.InProcess(precision="fp16"))
        with pytest.raises(InputError, match="fp32 there is fp16 here"):
            search(tmp_path / "run", warm_start=first.folder)

    def test_another_metric(self, first, device, tmp_path):
        with pytest.raises(InputError, match="measured latency, top1, and no accuracy, which"):
            search(
                tmp_path / "run",
                data=RENAMED,
                warm_start=first.folder,
            )

    def test_a_run_outside_of_what_is_searched(self, first, device, tmp_path):
        part, _ = search(tmp_path / "part", only=["stage1.width in 4"], budget=4)
        with pytest.raises(InputError, match=r"knows 4 architectures, none of them in the part"):
            search(tmp_path / "run", warm_start=part.folder, only=["stage1.width in 8"])

    @pytest.mark.parametrize("name", ["nothing", "config.toml"])
    def test_what_is_no_run(self, name, first, device, tmp_path):
        with pytest.raises(InputError, match="is no run and no CSV file; give the folder of a"):
            search(tmp_path / "run", warm_start=first.folder / name)
        with pytest.raises(InputError, match=r"is no run: it has no config.toml"):
            search(tmp_path / "run", warm_start=tmp_path)

    def test_a_run_that_evaluated_nothing(self, first, device, tmp_path):
        folder = self.given(first, tmp_path, lambda content: None)
        (folder / "trials.sqlite").unlink()
        with pytest.raises(
            InputError, match=r"has no trials\.sqlite: nothing was evaluated there"
        ):
            search(tmp_path / "run", warm_start=folder)


class TestFirstDifference:
    HERE = SearchSpace([Choice("a", (1, 2)), Choice("b", (3, 4), ("a", (2,)))])

    def test_none(self):
        assert first_difference(self.HERE, self.HERE) == ""

    @pytest.mark.parametrize(
        ("there", "text"),
        [
            (
                [Choice("a", (1, 2)), Choice("c", (3, 4))],
                "it has a choice 'c', which is none here",
            ),
            ([Choice("a", (1, 2))], "it has no choice 'b'"),
            ([Choice("a", (1, 2, 3))], "choice 'a' has the options 1, 2, 3 there, and 1, 2 here"),
            ([Choice("a", (True, 2))], "choice 'a' has the options True, 2 there"),
            (
                [Choice("a", (1, 2)), Choice("b", (3, 4))],
                "choice 'b' is active there: always, and here: a is 2",
            ),
        ],
    )
    def test_is_named(self, there, text):
        assert first_difference(SearchSpace(there), self.HERE).startswith(text)
