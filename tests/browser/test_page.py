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

from plifctl.runs import SpikeRecording, save_spikes
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
        """Runs whose curves are visible, one name for each line of the chart."""
        visible = "plot.series.filter((s, i) => i > 0 && s.show && s.class !== 'faint').map(s => s.run)"
        return self.page.evaluate(f"plot === null ? [] : {visible}")

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
    from plifctl.pipeline.report import write_report_page

    return write_report_page(tmp_path_factory.mktemp("page") / "report", runs).as_uri()


@pytest.fixture(scope="module")
def long_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of one run of 100 epochs, longer than the window of the moving average."""
    from plifctl.pipeline.report import write_report_page

    folder = tmp_path_factory.mktemp("long")
    make_run(folder / "runs", epochs=100)
    return write_report_page(folder / "report", folder / "runs").as_uri()


def test_page_with_hostile_names_requests_nothing_and_shows_text(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    assert found.requests == [page]
    assert found.page.locator("table caption").first.inner_text().startswith("Table 1.")
    for details in found.page.locator("#run-list details").all():
        details.locator("summary").click()
    assert found.page.locator("img").count() == 0
    assert found.page.locator("#run-list").inner_text().count(HOSTILE) == 2
    assert HOSTILE in found.page.locator("#viewer").inner_text()


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


def test_selection_of_runs_changes_curves(open_page: Callable[..., OpenPage], page: str, runs: Path) -> None:
    found = open_page(page)
    names = sorted(path.name for path in runs.iterdir())
    assert set(names) <= set(found.curves())
    found.page.locator(f"input[value='{names[0]}']").uncheck()
    assert names[0] not in found.curves()
    found.page.locator(f"input[value='{names[0]}']").check()
    assert names[0] in found.curves()
    found.page.locator("#search").fill("no such run")
    assert found.page.locator(".choice").count() == 0
    found.page.locator("#search").fill(names[1][-30:])
    assert found.page.locator(".choice").count() == 1
    found.page.locator("#metric").select_option("tau")
    assert sorted(found.curves()) == names  # one layer in each run
    found.page.locator("#none").click()
    assert found.curves() == []
    assert found.page.locator("#no-curves").is_visible()


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
    raw, average = found.page.evaluate("plot.data.slice(1)")
    accuracy = np.arange(1, 101) / 101 * 100
    np.testing.assert_allclose(raw, accuracy, rtol=1e-4)
    expected = [accuracy[max(0, i - 63) : i + 1].mean() for i in range(100)]
    np.testing.assert_allclose(average, expected, rtol=1e-4)
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
    found.page.locator(f"input[value='{name}']").check()
    found.page.locator("#chart").focus()
    found.page.keyboard.press("Home")
    for epoch in (1, 2, 3):
        cells = found.page.locator("#readout tbody td").all_inner_texts()
        assert cells[:2] == [str(epoch), f"{100 * epoch / 13:.2f}"]
        found.page.keyboard.press("ArrowRight")


FOCUSED = "(({id, className, tagName}) => id || className || tagName)(document.activeElement)"


def test_controls_of_page_are_reachable_by_keyboard(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page)
    reached = []
    while "time" not in reached and len(reached) < 500:  # there is a stop for each run and each note
        found.page.keyboard.press("Tab")
        reached.append(found.page.evaluate(FOCUSED))
    for wanted in ("skip", "theme", "metric", "smooth", "search", "none", "reset", "chart", "SUMMARY", "play", "time"):
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
      return ["body", ".source", "a[href='#tables']", "legend", "summary .status"].map((selector) => {
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


def test_page_on_a_phone_is_not_wider_than_the_screen(open_page: Callable[..., OpenPage], page: str) -> None:
    found = open_page(page, viewport={"width": 390, "height": 800})
    assert found.page.evaluate("document.documentElement.scrollWidth") == 390


def test_print_of_dark_page_is_light_and_complete(
    open_page: Callable[..., OpenPage], page: str, tmp_path: Path
) -> None:
    found = open_page(page, color_scheme="dark")
    found.page.emulate_media(media="print")
    assert found.page.locator("#theme").is_hidden()
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert found.page.locator("caption").first.is_visible()
    dark = found.page.evaluate("css('--s0')")
    assert len(found.page.pdf(path=str(tmp_path / "page.pdf"))) > 10_000
    found.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert found.page.evaluate("css('--s0')") != dark, "curves are printed in the colours of the light theme"
    found.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert found.page.evaluate("css('--s0')") == dark


def test_served_page_follows_a_running_run(open_page: Callable[..., OpenPage], tmp_path: Path) -> None:
    from plifctl.pipeline.report import serve_report_page

    run = make_run(tmp_path / "runs", epochs=3, finished=False)
    server = serve_report_page(tmp_path / "runs")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        found = open_page(f"http://127.0.0.1:{server.server_port}/")
        found.page.locator("summary", has_text=run.name).click()
        assert "epoch 3" in found.page.locator("summary", has_text=run.name).inner_text()
        found.page.locator("#chart").focus()
        found.page.keyboard.press("Home")
        MetricsFile(run.path).append({**run.metrics()[-1], "epoch": 4, "test_accuracy": 0.875})
        summary = found.page.locator("summary", has_text=run.name)
        summary.filter(has_text="epoch 4").wait_for()
        assert "87.50" in summary.inner_text()
        assert found.page.locator("details[open]").count() == 1  # open details stay open
        assert found.page.locator("#live").inner_text() == "live"
        found.page.locator("#readout td", has_text="25.00").wait_for()  # the cursor stays at epoch 1
        assert all(url.startswith(f"http://127.0.0.1:{server.server_port}/") for url in found.requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
