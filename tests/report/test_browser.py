"""The page in a browser: it draws, answers and fits, and asks nobody for anything."""

import pytest

from hwsearch.report.run_data import read_run_data
from hwsearch.report.write import page_of
from tests.report.browser import found_browser, launched
from tests.report.conftest import HOSTILE

sync_api = pytest.importorskip("playwright.sync_api", reason="install the extra 'browser'")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(300),
    pytest.mark.skipif(found_browser() is None, reason="no chromium is installed"),
]
WIDTHS, SCHEMES = (1280, 390), ("light", "dark")
KINDS = ("front", "bound", "candidates", "unfinished", "single", "hostile", "elastic", "compared")
ALL_DRAWN = "html[data-drawn=all]"


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = launched(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(run_data, tmp_path_factory):
    """Kind -> the file of its page."""
    folder = tmp_path_factory.mktemp("pages")
    paths = {}
    for kind in KINDS:
        known = [run_data["front"], run_data["other"]] if kind == "compared" else [run_data[kind]]
        paths[kind] = folder / f"{kind}.html"
        paths[kind].write_text(page_of(known), encoding="utf-8")
    return paths


@pytest.fixture
def opened(chromium, files):
    """Open a page; at the end nothing was said, asked for or loaded besides the file itself."""
    pages = []

    def open_page(kind, width=1280, scheme="light", path=None):
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        heard, asked = [], []
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((path or files[kind]).as_uri())
        page.wait_for_selector(ALL_DRAWN, state="attached", timeout=120_000)
        pages.append((page, heard, asked))
        return page

    yield open_page
    for page, heard, asked in pages:
        loaded = [url for url in asked[1:] if not url.startswith(("data:", "blob:"))]
        page.close()
        assert heard == []
        assert loaded == []


def visible_plots(page):
    """Of every plot in sight: whether it has axes, and how many marks it shows."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".plot")].filter((node) => node.offsetParent).map(
            (node) => [Boolean(node.querySelector(".main-svg .cartesianlayer .xtick")),
                       node.querySelectorAll(".point, .js-line, .bars path").length])"""
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_plot_is_drawn(opened, kind):
    page = opened(kind)
    plots = visible_plots(page)
    assert plots
    assert all(has_axes and marks for has_axes, marks in plots)


@pytest.mark.parametrize("kind", KINDS)
def test_it_fits_and_is_legible_at_both_widths_in_both_schemes(opened, kind):
    page = opened(kind)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            page.wait_for_function(
                "(scheme) => document.documentElement.dataset.scheme === scheme", arg=scheme
            )
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert min(page.evaluate(CONTRASTS)) >= 4.5, (width, scheme)


# Of texts against what lies behind them; 4.5 is what WCAG 2.2 asks for.
CONTRASTS = """() => {
    const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
        .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [0.2126, 0.7152, 0.0722][at], 0);
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const colour = numbers(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll("#page *")]
        .filter((node) => !node.closest("svg, .plot") && node.offsetParent
            && [...node.childNodes].some((each) => each.nodeType === 3 && each.data.trim()))
        .map((node) => [light(numbers(getComputedStyle(node).color)), light(behind(node))])
        .map(([a, b]) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
}"""


def test_plots_have_no_button_that_sends_them_anywhere(opened):
    buttons = opened("front").evaluate(
        "() => [...document.querySelector('.plot').querySelectorAll('.modebar-btn')]"
        ".map((button) => button.dataset.title)"
    )
    assert len(buttons) == 4
    assert not [title for title in buttons if "share" in title.lower() or "cloud" in title.lower()]


def test_the_button_changes_the_scheme_and_the_plots(opened):
    page = opened("front")
    colours = "() => getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    background = "() => getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(colours), page.evaluate(background)
    page.click("#scheme")
    page.wait_for_function(f"(before) => ({colours})() !== before", arg=before[0])
    assert page.evaluate(background) != before[1]
    assert page.inner_text("#scheme") == "Light"


def test_the_knee_has_the_first_card(opened, runs):
    page = opened("front")
    key = runs["front"].select("knee")[0]
    card = page.inner_text(".card")
    row = runs["front"].front.set_index("key").loc[key]
    assert key in card
    assert "knee" in card
    assert f"{row['latency']:.4g} ms" in card
    assert f"subnets/{key}" in page.inner_text(".load")


def slowest_point(page):
    """Where the slowest trial stands in the plot of the front, and its number."""
    x, y, number = page.locator(".plot.tall").evaluate(
        """(node) => {
            const trace = node._fullData.find((each) => each.name.startsWith("trials"));
            const { xaxis, yaxis } = node._fullLayout;
            const at = trace.x.indexOf(Math.max(...trace.x));
            return [xaxis.l2p(trace.x[at]) + xaxis._offset, yaxis.l2p(trace.y[at]) + yaxis._offset,
                    trace.customdata[at]];
        }"""
    )
    return {"x": x, "y": y}, number


def test_a_click_on_a_point_shows_its_card(opened, run_data):
    page = opened("front")
    position, number = slowest_point(page)
    page.locator(".plot.tall").click(position=position)
    key = run_data["front"].trials[number].key
    page.wait_for_function(f"() => document.querySelector('.card').innerText.includes('{key}')")


def test_rows_of_tables_and_pictures_choose(opened, runs):
    page = opened("front")
    fastest = runs["front"].front.sort_values("latency")["key"].iloc[0]
    page.click("tr.row:has-text('the fastest') >> nth=-1")
    assert fastest in page.inner_text(".card")
    page.click("svg.archs .line >> nth=-1")
    slowest = runs["front"].front.sort_values("latency")["key"].iloc[-1]
    assert slowest in page.inner_text(".card")


def test_elastic_models_are_drawn_by_what_they_keep(opened, run_data):
    page, known = opened("elastic"), run_data["elastic"]
    drawn = page.evaluate(
        """() => [...document.querySelectorAll("section svg.archs .line")].map((line) => {
            const titles = [...line.querySelectorAll("g > title")];
            const glyphs = titles.map((title) => title.parentNode);
            const of = (each) => [...each.querySelectorAll("rect")];
            return glyphs.map((each) => [each.querySelector("title").textContent, of(each).map(
                (rect) => rect.getAttribute("stroke-dasharray") ? "out"
                    : rect.getAttribute("fill-opacity") ? "whole"
                    : Number(rect.getAttribute("height")))]);
        })"""
    )
    assert len(drawn) == len(known.best)
    for glyphs in drawn:
        for title, rects in glyphs:
            if "keep = False" in title:
                assert rects == ["out", "out"], title
            elif "layer0.width = 64" in title:
                assert rects == ["whole", pytest.approx(22 / 3, abs=0.01)]
            elif "conv0.width = 64" in title:
                assert rects[:2] == ["whole", 22]
    text = page.inner_text("main")
    assert "keep True" not in text
    assert "without " in text


def shown_rows(page):
    return page.locator("table.trials tbody tr").count()


def drawn_points(page):
    return page.evaluate(
        """() => document.querySelector(".plot.tall").data
            .find((trace) => trace.name.startsWith("trials")).x.length"""
    )


def test_filters_hold_for_the_table_and_the_plot(opened, run_data):
    page = opened("bound")
    known = run_data["bound"]
    n = len(known.trials)
    assert shown_rows(page) == n
    page.fill("input[type=search]", "resolution=160")
    small = sum(trial.choices["resolution"] == 160 for trial in known.trials)
    assert 0 < small < n
    assert shown_rows(page) == small
    assert f"{small} of {n} trials" in page.inner_text(".count")
    assert drawn_points(page) < small  # without those that failed or have no score
    page.fill("input[type=search]", "")
    page.select_option("select", "failed")
    assert shown_rows(page) == n // 10
    page.select_option("select", "all")
    page.click("[data-filter=best]")
    assert shown_rows(page) == len(known.best)
    page.click("[data-filter=best]")
    page.click("[data-filter=bound]")
    assert shown_rows(page) == sum(known.values["latency"] <= 6)
    page.fill("input[type=search]", "no such thing")
    assert shown_rows(page) == 0
    assert drawn_points(page) == 0


def test_columns_sort_both_ways(opened, run_data):
    page = opened("front")
    rows = "() => [...document.querySelectorAll('table.trials tbody tr')]"
    column = f"{rows}.map((row) => row.dataset.number)"
    values = run_data["front"].values["latency"]
    for sign in (1, -1):
        page.click("table.trials th button:has-text('latency (ms)')")
        shown = [sign * values[int(number)] for number in page.evaluate(column)]
        known = [value for value in shown if value == value]
        assert known == sorted(known)
        assert shown[: len(known)] == known  # what is not known comes last


def test_a_strangers_text_is_shown_as_it_is(opened):
    page = opened("hostile")
    assert HOSTILE in page.inner_text("h1")
    assert HOSTILE in page.inner_text(".note >> nth=0")
    assert page.locator("img").count() == 0
    page.locator(".plot.tall").hover(position=slowest_point(page)[0])
    page.wait_for_selector(".hovertext")
    assert HOSTILE.replace("=", "") in "".join(page.locator(".hovertext").all_text_contents())


def test_tabs_show_one_run_each(opened):
    page = opened("compared")
    page.click("[role=tab]:has-text('other')")
    page.wait_for_selector(ALL_DRAWN, state="attached")
    assert page.locator("main:visible").count() == 1
    assert "openvino" in page.inner_text("main:visible .facts")
    assert all(marks for _, marks in visible_plots(page))


def test_many_trials_are_shown_a_few_at_a_time(opened, tmp_path):
    from tests.report.made_run import made_run, space_of

    run = made_run(tmp_path / "run", 300, space=space_of(5))
    path = tmp_path / "page.html"
    path.write_text(page_of([read_run_data(run)]), encoding="utf-8")
    page = opened("many", path=path)
    assert shown_rows(page) == 50
    page.click("button:has-text('more')")
    assert shown_rows(page) == 250
