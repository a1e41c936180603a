"""The page in a real browser: it renders, responds, prints, and asks nobody for anything."""

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

from plifctl.config.registry import Registry, load_registry
from plifctl.paths import registry_dirs
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


class Watched:
    """A page, with what it said on the console and what it asked for."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def curves(self) -> list[str]:
        """Whose curves are drawn."""
        return self.page.eval_on_selector_all("path.curve[data-run]", "all => all.map(p => p.dataset.run)")


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Watched]]:
    all_opened: list[Watched] = []

    def open_page(url: str, **options: Any) -> Watched:
        found = Watched(browser, **options)
        all_opened.append(found)
        found.page.goto(url)
        return found

    yield open_page
    for watched in all_opened:
        watched.context.close()
        assert watched.said == []


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
    from plifctl.cli.pages import data_of
    from plifctl.report.page import write_page

    return write_page(tmp_path_factory.mktemp("page") / "report", data_of(runs, load_registry())).as_uri()


def test_it_asks_nobody_and_runs_nothing_foreign(opened: Callable[..., Watched], page: str) -> None:
    found = opened(page)
    assert found.asked == [page]
    assert found.page.locator("table caption").first.inner_text().startswith("Table 1.")
    for details in found.page.locator("#run-list details").all():
        details.locator("summary").click()
    assert found.page.locator("img").count() == 0
    assert found.page.locator("#run-list").inner_text().count(HOSTILE) == 2
    assert HOSTILE in found.page.locator("#viewer").inner_text()


def test_links_lead_somewhere(opened: Callable[..., Watched], page: str) -> None:
    found = opened(page)
    targets = found.page.eval_on_selector_all("a[href^='#']", "all => all.map(a => a.getAttribute('href'))")
    assert len(targets) > 5
    for target in set(targets):
        assert found.page.evaluate("id => document.getElementById(id) !== null", target[1:]), target


def test_curves_are_read_zoomed_and_chosen(opened: Callable[..., Watched], page: str, runs: Path) -> None:
    found = opened(page)
    names = sorted(path.name for path in runs.iterdir())
    assert set(names) <= set(found.curves())
    chart = found.page.locator("#chart")
    chart.hover(position={"x": 200, "y": 100})
    assert "test accuracy" in found.page.locator("#readout").inner_text()
    before = found.page.locator("#chart svg").text_content()
    box = chart.bounding_box()
    assert box is not None
    found.page.mouse.move(box["x"] + 80, box["y"] + 80)
    found.page.mouse.down()
    found.page.mouse.move(box["x"] + 250, box["y"] + 80, steps=3)
    found.page.mouse.up()
    zoomed = found.page.locator("#chart svg").text_content()
    assert zoomed != before
    found.page.locator("#reset").click()
    assert found.page.locator("#chart svg").text_content() != zoomed
    found.page.locator(f"input[value='{names[0]}']").uncheck()
    assert names[0] not in found.curves()
    found.page.locator(f"input[value='{names[0]}']").check()
    assert names[0] in found.curves()
    found.page.locator("#search").fill("no such run")
    assert found.page.locator(".choice").count() == 0
    found.page.locator("#search").fill(names[1][-30:])
    assert found.page.locator(".choice").count() == 1
    found.page.locator("#metric").select_option("tau")
    assert found.page.locator("path.curve[data-run]").count() == 2  # a layer in each run


def test_values_are_those_of_the_run(opened: Callable[..., Watched], page: str, runs: Path) -> None:
    found = opened(page)
    found.page.locator("#none").click()
    name = min(path.name for path in runs.iterdir())
    found.page.locator(f"input[value='{name}']").check()
    found.page.locator("#chart").focus()
    found.page.keyboard.press("Home")
    for epoch in (1, 2, 3):
        cells = found.page.locator("#readout tbody td").all_inner_texts()
        assert cells[-2:] == [str(epoch), f"{100 * epoch / 13:.2f}"]
        found.page.keyboard.press("ArrowRight")


FOCUSED = "(({id, className, tagName}) => id || className || tagName)(document.activeElement)"


def test_by_keyboard_alone(opened: Callable[..., Watched], page: str) -> None:
    found = opened(page)
    reached = []
    while "time" not in reached and len(reached) < 500:  # there is a stop for each run and each note
        found.page.keyboard.press("Tab")
        reached.append(found.page.evaluate(FOCUSED))
    for wanted in ("skip", "theme", "metric", "smooth", "search", "none", "reset", "chart", "SUMMARY", "play", "time"):
        assert wanted in reached, wanted
    found.page.locator("#chart").focus()
    whole = found.page.locator("#chart svg").text_content()
    found.page.keyboard.press("+")
    assert found.page.locator("#chart svg").text_content() != whole
    found.page.keyboard.press("0")
    assert found.page.locator("#readout").count() == 1
    assert found.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_samples_step_through_time(opened: Callable[..., Watched], page: str) -> None:
    found = opened(page)

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
def test_both_themes_can_be_read(opened: Callable[..., Watched], page: str, scheme: str) -> None:
    found = opened(page, color_scheme=scheme)
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


def test_nothing_is_wider_than_a_phone(opened: Callable[..., Watched], page: str) -> None:
    found = opened(page, viewport={"width": 390, "height": 800})
    assert found.page.evaluate("document.documentElement.scrollWidth") == 390


def test_in_print_everything_is_there(opened: Callable[..., Watched], page: str, tmp_path: Path) -> None:
    found = opened(page, color_scheme="dark")
    found.page.emulate_media(media="print")
    assert found.page.locator("#theme").is_hidden()
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert found.page.locator("caption").first.is_visible()
    assert len(found.page.pdf(path=str(tmp_path / "page.pdf"))) > 10_000


def test_served_it_follows_a_run(opened: Callable[..., Watched], tmp_path: Path) -> None:
    from plifctl.cli.pages import data_of
    from plifctl.report.page import serve

    run = make_run(tmp_path / "runs", epochs=3, finished=False)
    registry = Registry(registry_dirs())
    server = serve(lambda: data_of(tmp_path / "runs", registry), 0)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        found = opened(f"http://127.0.0.1:{server.server_port}/")
        found.page.locator("summary", has_text=run.name).click()
        assert "epoch 3" in found.page.locator("summary", has_text=run.name).inner_text()
        MetricsFile(run.path).append({**run.metrics()[-1], "epoch": 4, "test_accuracy": 0.875})
        summary = found.page.locator("summary", has_text=run.name)
        summary.filter(has_text="epoch 4").wait_for()
        assert "87.50" in summary.inner_text()
        assert found.page.locator("details[open]").count() == 1  # what was opened stays open
        assert found.page.locator("#live").inner_text() == "live"
        assert all(url.startswith(f"http://127.0.0.1:{server.server_port}/") for url in found.asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
