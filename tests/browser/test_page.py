"""The report page in a browser: it renders, responds, prints, and requests nothing."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from factories import make_run

from plifctl.report.page import RunFacts, build_page_data, page_run, write_page
from plifctl.runs import Curve, SpikeRecording, save_spikes
from plifctl.runs.documents import add_checksum
from plifctl.runs.metrics import MetricsFile

sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright here: make test-browser")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: Debian's package chromium"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Playwright's own
]
SWITCHES = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=SWITCHES)
        yield found
        found.close()


class OpenPage:
    """A page in a browser, with its console messages and requests."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def curves(self) -> list[str]:
        """Runs of the user whose curves are visible."""
        visible = (
            "plot.series.filter(s => s.line && !s.line.thin && s.show).flatMap(s => s.line.runs.map(run => run.name))"
        )
        return self.page.evaluate(f"plot === null ? [] : {visible}")

    def row(self, name: str) -> Any:
        """The row of a run in the table, if it is there."""
        return self.page.locator(f"#runs-body tr[data-run='{name}']")

    def names(self) -> list[str]:
        """Runs in the rows of the table, in order."""
        return self.page.locator("#runs-body tr[data-run]").evaluate_all("all => all.map(row => row.dataset.run)")

    def view(self) -> list[float]:
        """First and last visible epoch."""
        return self.page.evaluate("[plot.scales.x.min, plot.scales.x.max]")


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., OpenPage]]:
    pages: list[OpenPage] = []

    def open_url(url: str, **options: Any) -> OpenPage:
        found = OpenPage(browser, **options)
        pages.append(found)
        found.page.goto(url)
        return found

    yield open_url
    for page in pages:
        page.context.close()
        assert page.messages == []


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: one with recorded spikes, one whose layers are called what markup would be."""
    folder = tmp_path_factory.mktemp("page") / "runs"
    run = make_run(folder, epochs=12)
    generator = np.random.default_rng(0)
    spikes = {"sn0": generator.random((3, 5, 4, 6, 7)) < 0.4}
    frames = generator.integers(0, 5, (3, 5, 2, 6, 7)).astype(np.uint8)
    classes = ("left", HOSTILE, "up")
    votes = generator.random((3, 5, 3))
    save_spikes(
        run.path / "spikes.npz", SpikeRecording(("a", "b", HOSTILE), np.arange(3), classes, frames, votes, spikes)
    )
    other = make_run(folder, "train.lr=0.5", epochs=5)
    environment = other.path / "env.json"
    environment.write_text(json.dumps(add_checksum({HOSTILE: HOSTILE})))
    return folder


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    from plifctl.pipeline.page import write_report_page

    return write_report_page(tmp_path_factory.mktemp("page") / "report", runs).as_uri()


@pytest.fixture(scope="module")
def long_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of one run of 100 epochs, longer than the window of the moving average."""
    from plifctl.pipeline.page import write_report_page

    folder = tmp_path_factory.mktemp("long")
    make_run(folder / "runs", epochs=100)
    return write_report_page(folder / "report", folder / "runs").as_uri()


@pytest.fixture(scope="module")
def many_runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page of 200 made-up runs, 40 settings of 5 seeds; four of them the authors'."""
    from benchmarks.report_page import make_runs
    from plifctl.config.lookup import load_registry

    runs = list(make_runs(200, 30, load_registry()))
    return write_page(tmp_path_factory.mktemp("many"), build_page_data([], runs, "1")).as_uri()


def test_page_with_hostile_names_requests_nothing_and_shows_text(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    assert found.requests == [page]
    found.page.locator("#settings").scroll_into_view_if_needed()
    for details in ("#table-list > details", "#every-setting", "#run-facts > details", "#samples"):
        for summary in found.page.locator(f"{details} > summary").all():
            summary.click()
    assert found.page.locator("#table-list table").first.is_visible()
    assert found.page.locator("img").count() == 0
    assert found.page.locator("#run-facts").inner_text().count(HOSTILE) == 2
    assert HOSTILE in found.page.locator("#viewer").inner_text()


def test_table_of_runs_is_sorted_and_filtered(open_page: Callable[..., OpenPage], many_runs: str) -> None:
    found = open_page(many_runs)
    in_order = found.names()
    head = found.page.locator("#runs-head th", has_text="result")
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    results = found.page.locator("#runs-body tr[data-run] td:nth-of-type(7)").all_inner_texts()
    values = [float(text.split()[0]) for text in results]
    assert values == sorted(values, reverse=True)
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    head.locator("button").click()
    assert (head.get_attribute("aria-sort"), found.names()) == (None, in_order)
    found.page.get_by_label("whose").select_option("authors")
    assert found.page.locator("#count").inner_text().startswith("4 of 200 runs")
    assert set(found.page.locator("#runs-body tr[data-run] td:nth-of-type(10)").all_inner_texts()) == {"authors"}
    found.page.locator("#search").fill("no such run")
    assert (found.names(), found.page.locator("#no-runs").is_visible()) == ([], True)
    found.page.locator("#search").fill("lif tau16")
    assert all("lif-tau16" in name for name in found.names())


def test_rows_are_made_where_the_table_is_scrolled_to(open_page: Callable[..., OpenPage], many_runs: str) -> None:
    found = open_page(many_runs)
    every = found.page.evaluate("data.runs.map(run => run.name)")
    assert found.names() == every[: len(found.names())]
    assert len(found.names()) < 40
    found.page.evaluate("document.getElementById('runs-box').scrollTop = 1e6")
    found.row(every[-1]).wait_for()
    assert found.row(every[0]).count() == 0
    assert found.page.locator("#run-table").get_attribute("aria-rowcount") == "201"
    assert found.row(every[-1]).get_attribute("aria-rowindex") == "201"
    row, box = found.row(every[-1]).bounding_box(), found.page.locator("#runs-box").bounding_box()
    assert row is not None
    assert box is not None
    assert abs(row["y"] + row["height"] - box["y"] - box["height"]) <= 2, "the height of rows is that of the script"


def test_runs_are_chosen_by_keyboard_and_with_shift(open_page: Callable[..., OpenPage], many_runs: str) -> None:
    found = open_page(many_runs)
    every = found.page.evaluate("data.runs.map(run => run.name)")
    found.page.locator("#none").click()
    found.row(every[0]).locator("input").focus()
    found.page.keyboard.press("Space")
    assert found.curves() == [every[0]]
    found.page.keyboard.press("End")
    focused = "document.activeElement.closest('tr').dataset.run"
    assert found.page.evaluate(focused) == every[-1]
    found.page.keyboard.press("Home")
    found.page.keyboard.press("ArrowDown")
    found.page.keyboard.press("Space")
    assert (found.page.evaluate(focused), found.curves()) == (every[1], every[:2])
    found.row(every[4]).click(modifiers=["Shift"])
    assert found.curves() == every[:5]
    found.page.locator("#only-chosen").check()
    assert found.names() == every[:5]


def test_rows_are_chosen_with_shift_by_the_mouse_alone(open_page: Callable[..., OpenPage], many_runs: str) -> None:
    found = open_page(many_runs)
    every = found.page.evaluate("data.runs.map(run => run.name)")
    found.page.locator("#metric").select_option("loss")  # which all have, those of protocol B as well
    found.page.locator("#none").click()
    found.row(every[0]).click()
    found.row(every[3]).click(modifiers=["Shift"])
    assert found.curves() == every[:4]
    found.row(every[5]).locator("input").click(modifiers=["Shift"])
    assert found.curves() == every[:6]
    found.page.locator("h1").click(click_count=3)  # marks its text
    found.row(every[6]).locator("input").click()
    assert found.curves() == every[:7]


def test_updates_change_nothing_that_the_user_has_set(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    first, second = found.curves()
    found.page.locator("#readout th", has_text="0.5").first.click()
    (shown,) = found.curves()
    found.page.locator("#filters select").first.focus()
    found.page.evaluate("""() => {
      const fresh = structuredClone(data);
      for (const run of fresh.runs) run.hours = 1;
      update(fresh);
    }""")
    assert found.curves() == [shown]
    assert found.page.evaluate("document.activeElement.tagName") == "SELECT"
    found.page.locator("#metric").select_option("loss")
    found.page.locator("#none").click()
    found.row(shown).click()
    assert found.page.locator("#metric").input_value() == "loss"
    found.page.evaluate("name => update({ ...data, runs: data.runs.filter(run => run.name !== name) })", shown)
    assert found.page.locator("#count").inner_text().endswith(" 0 chosen")
    assert {first, second} > {shown}


def begin_page(open_page: Callable[..., OpenPage], page: str) -> tuple[OpenPage, str]:
    """Opens a page whose only run is somebody else's; ``all`` are the runs that it gets. Returns a run of the user."""
    found = open_page(page)
    own = found.page.evaluate("""() => {
      window.all = structuredClone(data.runs);
      const other = { ...window.all[1], name: "theirs", whose: "shipped" };
      data = { ...data, runs: [other] };
      window.all = [window.all[0], other];
      chooseFirst();
      drawRuns();
      drawCharts();
      return window.all[0].name;
    }""")
    assert found.curves() == ["theirs"]
    return found, own


def test_page_opened_before_the_first_epoch_draws_the_run_from_then_on(
    open_page: Callable[..., OpenPage], page: str
) -> None:
    found, own = begin_page(open_page, page)
    hint = found.page.locator("#no-runs")
    assert hint.inner_text() == "No runs of yours yet: plifctl train demo makes one."
    assert hint.is_visible()
    found.page.evaluate("update({ ...data, runs: [{ ...all[0], epochs: 0 }, all[1]] })")
    assert found.curves() == ["theirs"]
    assert hint.is_hidden()
    found.page.evaluate("update({ ...data, runs: all })")
    assert found.curves() == [own]
    assert found.page.locator("#count").inner_text() == "2 of 2 runs, 1 chosen"


def test_page_opened_before_the_first_epoch_keeps_a_choice_of_the_user(
    open_page: Callable[..., OpenPage], page: str
) -> None:
    found, _ = begin_page(open_page, page)
    found.page.locator("#none").click()
    found.row("theirs").click()
    found.page.evaluate("update({ ...data, runs: all })")
    assert found.curves() == ["theirs"]


def test_search_without_a_match_says_so_also_without_own_runs(open_page: Callable[..., OpenPage], page: str) -> None:
    found, _ = begin_page(open_page, page)
    found.page.locator("#search").fill("nothing has this")
    assert found.page.locator("#no-runs").inner_text() == "No matching run."


def test_diverged_run_without_any_tau_is_drawn_without_it(open_page: Callable[..., OpenPage], tmp_path: Path) -> None:
    values = {"series": {"test_accuracy": (0.1, 0.1)}, "layers": ("sn0", "sn1")}
    nan = float("nan")
    known = ("diverged", "imported", "mnist-plif", "authors", "A", 8, 1, (1, 2))
    for name, tau in (("all", ((nan, nan), (nan, nan))), ("one", ((nan, nan), (2.0, 2.1)))):
        curve = Curve(*known, **values, tau=tau)  # type: ignore[arg-type]
        run = page_run(RunFacts(curve, "diverged", "imported"))
        found = open_page(write_page(tmp_path / name, build_page_data([], [run], "1")).as_uri())
        found.page.evaluate("drawBelow?.()")
        assert found.curves() == ["diverged"]
        assert found.page.locator("#layer-charts h3").all_inner_texts() == ([] if name == "all" else ["sn1"])
        assert found.page.locator("#no-layers").is_visible() == (name == "all")


def test_viewer_stays_with_its_run(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    found.page.locator("#samples summary").click()
    found.page.locator("#time").wait_for()
    shown = found.page.evaluate("viewer.run")
    found.page.evaluate("""() => {
      const fresh = structuredClone(data), own = fresh.runs.find((run) => run.spikes);
      update({ ...fresh, runs: [{ ...own, name: "later" }, ...fresh.runs] });
    }""")
    assert found.page.locator("[data-choice='recording']").input_value() == shown


def test_seeds_are_drawn_as_mean_and_band(open_page: Callable[..., OpenPage], many_runs: str) -> None:
    found = open_page(many_runs)
    found.page.locator("#authors").uncheck()
    found.page.evaluate("choose(data.runs, false); choose(data.runs.slice(0, 5), true)")
    curves = found.page.evaluate("data.runs.slice(0, 5).map(run => curveOf(run, p => p.series.test_accuracy).values)")
    values = 100 * np.array(curves)
    _, mean, high, low = found.page.evaluate("plot.data")
    std = values.std(0, ddof=1)
    for drawn, expected in ((mean, values.mean(0)), (high, values.mean(0) + std), (low, values.mean(0) - std)):
        np.testing.assert_allclose(drawn, expected, rtol=1e-9)
    assert "5 seeds" in found.page.locator("#readout").inner_text()
    found.page.locator("#layer-table tr", has_text="5 seeds").wait_for()
    assert found.page.locator("#layer-charts canvas").count() == 5
    assert found.page.locator("#layer-table tbody tr").count() == 1
    assert "differ in the seed at most" in found.page.locator("#same").inner_text()


def test_runs_of_two_protocols_differ(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    found.page.evaluate("""() => {
      const [run] = data.runs;
      data.runs.push({ ...run, name: "validated", protocol: "B", setting: "other" });
      choose(data.runs, false);
      choose([run, data.runs.at(-1)], true);
    }""")
    found.page.locator("#settings").scroll_into_view_if_needed()
    row = found.page.locator("#differences tbody tr")
    row.first.wait_for()
    assert row.all_inner_texts() == ["protocol\tA\tB"]
    assert found.page.locator("#same").inner_text() == ""


def test_authors_run_is_drawn_at_the_same_epochs(open_page: Callable[..., OpenPage], many_runs: str) -> None:
    found = open_page(many_runs)
    found.page.evaluate("""() => {
      const part = parts.get(data.runs[0].curve);  // a run of 10 epochs
      part.epochs = 10;
      part.series = { test_accuracy: 0.5 };
      choose(data.runs, false);
      choose([data.runs[0]], true);
    }""")
    lines = found.page.evaluate(
        "plot.series.filter(s => s.line).map(s => [s.line.thin ?? false, s.line.epochs.at(-1)])"
    )
    assert lines == [[False, 10], [True, 10]]
    found.page.locator("#authors").uncheck()
    assert found.page.evaluate("plot.series.filter(s => s.line).length") == 1


def test_accuracies_are_printed_as_by_python(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    values = [correct / 288 for correct in range(289)]
    assert found.page.evaluate("values => values.map(percent)", values) == [f"{100 * value:.2f}" for value in values]


def test_settings_that_differ_are_listed(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    found.page.locator("#settings").scroll_into_view_if_needed()
    rows = found.page.locator("#differences tbody tr")
    rows.first.wait_for()
    texts = [row.split("\t") for row in rows.all_inner_texts()]
    assert {name: set(values) for name, *values in texts} == {"train.epochs": {"5", "12"}, "train.lr": {"0.5", "0.003"}}


def test_more_settings_than_styles_are_said(open_page: Callable[..., OpenPage], many_runs: str) -> None:
    found = open_page(many_runs)
    found.page.locator("#all").check()
    assert found.page.locator("#count").inner_text() == "200 of 200 runs, 200 chosen"
    assert "24 of the" in found.page.locator("#too-many").inner_text()
    found.page.locator("#metric").select_option("loss")
    found.page.evaluate("choose(data.runs.slice(0, 100), false)")
    assert len({*found.curves()}) == 100, "those without a style get one that has become free"
    assert not found.page.locator("#too-many").is_visible()


def test_links_of_page_have_targets(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    targets = found.page.eval_on_selector_all("a[href^='#']", "all => all.map(a => a.getAttribute('href'))")
    assert len(targets) > 5
    for target in set(targets):
        assert found.page.evaluate("id => document.getElementById(id) !== null", target[1:]), target


def test_chart_zoomed_by_drag_shows_fewer_epochs_until_reset(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    chart = found.page.locator("#chart")
    chart.hover(position={"x": 200, "y": 100})
    assert "test accuracy" in found.page.locator("#readout").inner_text()
    box = chart.bounding_box()
    assert box is not None
    whole = found.view()
    for reset in (found.page.locator("#reset").click, lambda: chart.dblclick(position={"x": 300, "y": 100})):
        found.page.mouse.move(box["x"] + 200, box["y"] + 80)
        found.page.mouse.down()
        found.page.mouse.move(box["x"] + 500, box["y"] + 80, steps=3)
        found.page.mouse.up()
        low, high = found.view()
        assert whole[0] < low < high < whole[1]
        reset()
        assert found.view() == whole


def test_closest_zoom_is_an_epoch(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    found.page.locator("#chart").focus()
    for _ in range(9):
        found.page.keyboard.press("+")
    low, high = found.view()
    assert high - low == pytest.approx(1)


def test_keys_reach_epochs_beyond_a_gap(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    found.page.evaluate("""() => {
      const run = data.runs.find((one) => one.epochs === 12), part = parts.get(run.curve);
      part.epochs = [1, 6, 11];
      [part.series, part.tau, part.distributions] = [{ test_accuracy: 0.5 }, {}, {}];
      byId("authors").click();
      choose(data.runs, false);
      choose([run], true);
    }""")
    found.page.locator("#chart").focus()
    found.page.keyboard.press("Home")
    read = []
    for _ in range(2):
        found.page.keyboard.press("ArrowRight")
        read.append(found.page.evaluate("state.cursor"))
    assert read == [6, 11]


def test_choice_of_runs_changes_curves(open_page: Callable[..., OpenPage], page: str, runs: Path) -> None:
    found = open_page(page)
    names = sorted(path.name for path in runs.iterdir())
    assert sorted(found.curves()) == names
    found.row(names[0]).click()
    assert found.curves() == names[1:]
    found.row(names[0]).locator("input").check()
    assert sorted(found.curves()) == names
    found.page.locator("#metric").select_option("loss")
    assert sorted(found.curves()) == names
    found.page.locator("#none").click()
    assert found.curves() == []
    assert found.page.locator("#no-curves").is_visible()
    found.page.locator("#layers").scroll_into_view_if_needed()
    found.page.locator("#no-layers").wait_for()


def test_legend_name_clicked_hides_curve_and_its_average(
    open_page: Callable[..., OpenPage], page: str, runs: Path
) -> None:
    found = open_page(page)
    before = found.curves()
    found.page.locator("#readout tbody tr:not(.faint) .u-label").first.click()
    assert found.curves() == before[1:]
    found.page.locator("#readout tbody tr:not(.faint) .u-label").first.click()
    assert found.curves() == before


def test_long_curve_is_drawn_with_moving_average(open_page: Callable[..., OpenPage], long_page: str) -> None:
    found = open_page(long_page)
    found.page.locator("#smooth").check()
    average, raw = found.page.evaluate("plot.data.slice(1)")
    accuracy = np.arange(1, 101) / 101 * 100
    np.testing.assert_allclose(raw, accuracy, atol=1e-3)
    expected = [accuracy[max(0, i - 63) : i + 1].mean() for i in range(100)]
    np.testing.assert_allclose(average, expected, atol=1e-3)
    found.page.locator("#readout tbody tr:not(.faint) .u-label").first.click()
    assert found.page.evaluate("plot.series.slice(1).map(s => s.show)") == [False, False]
    found.page.locator("#smooth").uncheck()
    assert found.page.evaluate("plot.data.length") == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_have_colours_of_the_theme(open_page: Callable[..., OpenPage], page: str, scheme: str) -> None:
    found = open_page(page, color_scheme=scheme)
    drawn = """() => {
      const canvas = document.querySelector("#chart canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const hex = (value) => value.toString(16).padStart(2, "0"), found = new Set();
      for (let i = 0; i < data.length; i += 4)
        if (data[i + 3] === 255) found.add("#" + [...data.slice(i, i + 3)].map(hex).join(""));
      return [0, 1].map(i => found.has(css(`--s${i}`)));
    }"""
    assert found.page.evaluate(drawn) == [True, True]
    before = found.page.evaluate("css('--s0')")
    found.page.evaluate("document.getElementById('theme').click()")
    if scheme == "light":
        found.page.evaluate("document.getElementById('theme').click()")
    assert found.page.evaluate("css('--s0')") != before
    assert found.page.evaluate(drawn) == [True, True]


def test_values_read_by_keyboard_are_those_of_the_run(
    open_page: Callable[..., OpenPage], page: str, runs: Path
) -> None:
    found = open_page(page)
    found.page.locator("#none").click()
    # by its length: names begin with a second, which may pass between two runs
    name = next(path.parent.name for path in runs.glob("*/metrics.jsonl") if len(path.read_text().splitlines()) == 12)
    found.row(name).click()
    found.page.locator("#chart").focus()
    found.page.keyboard.press("Home")
    for epoch in (1, 2, 3):
        cells = found.page.locator("#readout tbody td").all_inner_texts()
        assert cells[:2] == [str(epoch), f"{100 * epoch / 13:.2f}"]
        found.page.keyboard.press("ArrowRight")


def test_legend_without_a_cursor_shows_the_last_epoch(
    open_page: Callable[..., OpenPage], page: str, runs: Path
) -> None:
    found = open_page(page)
    found.page.locator("#none").click()
    name = next(path.parent.name for path in runs.glob("*/metrics.jsonl") if len(path.read_text().splitlines()) == 12)
    found.row(name).click()
    cells = found.page.locator("#readout tbody td")
    assert cells.all_inner_texts()[:2] == ["12", f"{100 * 12 / 13:.2f}"]
    found.page.locator("#chart").hover(position={"x": 200, "y": 100})
    assert cells.all_inner_texts()[0] != "12"
    found.page.locator("#search").hover()
    assert cells.all_inner_texts()[0] == "12"


FOCUSED = "(({id, className, tagName}) => id || className || tagName)(document.activeElement)"


def test_controls_of_page_are_reachable_by_keyboard(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    reached = []
    found.page.evaluate("document.getElementById('samples').open = true")
    while "time" not in reached and len(reached) < 200:
        found.page.keyboard.press("Tab")
        reached.append(found.page.evaluate(FOCUSED))
    for wanted in (
        *("skip", "theme", "search", "none", "all", "metric", "smooth", "reset", "chart"),
        *("SUMMARY", "play", "time"),
    ):
        assert wanted in reached, wanted
    found.page.locator("#chart").focus()
    whole = found.view()
    found.page.keyboard.press("+")
    low, high = found.view()
    assert (low, high) != tuple(whole)
    assert high - low == pytest.approx((whole[1] - whole[0]) / 2)
    found.page.keyboard.press("0")
    assert found.view() == whole
    assert found.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_samples_stepped_through_time_show_spikes_and_rates(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    found.page.locator("#samples > summary").click()
    found.page.wait_for_selector("#spikes")

    def pixels(canvas: str) -> list[int]:
        every_fourth = "getImageData(0, 0, c.width, c.height).data.filter((_, i) => i % 4 === 0)"
        draw = f"c => Array.from(c.getContext('2d').{every_fourth})"
        return found.page.eval_on_selector(f"#{canvas}", draw)

    generator = np.random.default_rng(0)
    spikes = generator.random((3, 5, 4, 6, 7)) < 0.4
    for t in range(3):
        assert pixels("spikes") == (255 * spikes[0, t, 0].astype(int)).ravel().tolist()
        rates = np.round(255 * spikes[0, : t + 1, 0].mean(0)).astype(int).ravel()
        assert np.abs(np.array(pixels("rates")) - rates).max() <= 1
        found.page.locator("#forward").click()
    found.page.locator("[data-choice='channel']").select_option(index=2)
    assert pixels("spikes") == (255 * spikes[0, 3, 2].astype(int)).ravel().tolist()
    found.page.locator("#play").click()
    found.page.locator("#now", has_text="0 of 4").wait_for()
    assert found.page.locator("#play").inner_text() == "Pause"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_of_both_themes_has_contrast(open_page: Callable[..., OpenPage], page: str, scheme: str) -> None:
    found = open_page(page, color_scheme=scheme)
    ratio = """() => {
      const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const linear = (v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4);
      const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
      const paper = light(rgb(getComputedStyle(document.body).backgroundColor));
      return ["body", ".source", "a[href='#tables']", "#count", "#filters label"].map((selector) => {
        const ink = light(rgb(getComputedStyle(document.querySelector(selector)).color));
        return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
      });
    }"""
    assert min(found.page.evaluate(ratio)) >= 4.5
    paper = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    found.page.locator("#theme").click()
    if scheme == "light":
        found.page.locator("#theme").click()
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") != paper


@pytest.mark.parametrize("width", [390, 1400])
def test_folded_page_is_not_wider_than_the_screen_and_short(
    open_page: Callable[..., OpenPage], many_runs: str, width: int
) -> None:
    found = open_page(many_runs, viewport={"width": width, "height": 800})
    found.page.locator("#all").check()
    found.page.locator("#layers").scroll_into_view_if_needed()
    found.page.locator("#layer-charts canvas").nth(4).wait_for()
    assert found.page.evaluate("document.documentElement.scrollWidth") == width
    assert found.page.evaluate("document.documentElement.scrollHeight") < 3000


def test_print_of_dark_page_is_light_and_complete(
    open_page: Callable[..., OpenPage], page: str, tmp_path: Path
) -> None:
    found = open_page(page, color_scheme="dark")
    found.page.emulate_media(media="print")
    assert found.page.locator("#theme").is_hidden()
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    dark = found.page.evaluate("css('--s0')")
    assert len(found.page.pdf(path=str(tmp_path / "page.pdf"))) > 10_000
    found.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert found.page.evaluate("css('--s0')") != dark, "curves are printed in the colours of the light theme"
    assert found.page.locator("#table-list table").first.is_visible()
    found.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert found.page.evaluate("css('--s0')") == dark
    assert found.page.locator("#table-list table").first.is_hidden()


def test_served_page_draws_the_last_choice_though_an_earlier_curve_arrives_later(
    open_page: Callable[..., OpenPage], tmp_path: Path
) -> None:
    from plifctl.pipeline.page import serve_report_page

    first, second = (make_run(tmp_path / "runs", epochs=epochs) for epochs in (12, 9))
    server = serve_report_page(tmp_path / "runs")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        found = open_page(f"http://127.0.0.1:{server.server_port}/")
        found.page.locator("#none").click()
        found.page.evaluate(
            """slow => {
            parts.clear();
            const curve = data.runs.find(run => run.name === slow).curve, real = window.fetch;
            window.held = new Promise(done => { window.release = done; });
            window.fetch = async (url) => {
                if (url === `parts/${curve}`) await window.held;
                return real(url);
            };
        }""",
            first.name,
        )
        found.row(first.name).click()
        found.row(first.name).click()
        found.row(second.name).click()
        found.page.locator("#readout tbody tr").first.wait_for()
        shown = found.page.locator("#readout").inner_text()
        found.page.evaluate("async () => { window.release(); await new Promise(done => setTimeout(done, 200)); }")
        assert found.page.locator("#readout").inner_text() == shown
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_served_page_follows_a_running_run(open_page: Callable[..., OpenPage], tmp_path: Path) -> None:
    from plifctl.pipeline.page import serve_report_page

    run = make_run(tmp_path / "runs", epochs=3, finished=False)
    server = serve_report_page(tmp_path / "runs")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        found = open_page(f"http://127.0.0.1:{server.server_port}/")
        row = found.row(run.name)
        assert "3" in row.inner_text().split("\t")
        found.page.locator("#chart").focus()
        found.page.keyboard.press("Home")
        row.locator("input").focus()
        MetricsFile(run.path).append({**run.metrics()[-1], "epoch": 4, "test_accuracy": 0.875})
        row.filter(has_text="87.50").wait_for()
        assert "4/3" in row.inner_text().split("\t")
        assert found.page.evaluate("document.activeElement.type") == "checkbox", "the focus stays"
        assert found.page.locator("#live").inner_text() == "live"
        found.page.locator("#readout td", has_text="25.00").wait_for()  # the cursor stays at epoch 1
        assert all(url.startswith(f"http://127.0.0.1:{server.server_port}/") for url in found.requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
