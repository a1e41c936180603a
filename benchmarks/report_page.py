"""The report page with many runs: its size, and how fast Chromium opens it and draws a choice.

The runs are made up: every experiment of the registry, by both recipes and protocols, with five seeds and τ of five
layers. Opening is timed from the start of the navigation to the first picture with table and charts, and until the
whole file is read; a choice, a sort and a
filter from the event to the next picture. ``--keep DIR`` keeps the page, with pictures of it at two widths in both
themes. It needs Playwright and Chromium, as ``make test-browser`` does.
"""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Figure, Setting, below, run
from plifctl import __version__
from plifctl.config.base import flatten
from plifctl.config.choices import TABLES
from plifctl.config.experiment import Experiment
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.report import fill_table
from plifctl.report.page import PageRun, RunFacts, build_page_data, page_run, write_page
from plifctl.runs import Curve, external_accuracy

_RUNS, _EPOCHS = 1000, 1024
_LAYERS, _SEEDS = 5, 5
_ENVIRONMENT = {"torch": "2.8.0", "python": "3.11.2", "device": "NVIDIA H200", "plifctl": __version__}
_PAINTED = "new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
"""Waits for the next picture, and returns its time."""

_ON_OPEN = f"""
  window.opened = new Promise(done => {{
    const look = () => document.querySelector('#chart canvas') ? done({_PAINTED}) : requestAnimationFrame(look);
    look();
  }});
  window.complete = new Promise(done => addEventListener('DOMContentLoaded', () => done({_PAINTED})));
"""
_ACTIONS = {
    "one more run": "[...document.querySelectorAll('#runs-body input:not(:checked)')][trial].click()",
    "five seeds": "choose(data.runs.filter(run => run.setting === data.runs[10 * (trial + 1)].setting), true)",
    "another metric": "metric.value = ['loss', 'train_accuracy'][trial % 2]; metric.dispatchEvent(new Event('change'))",
    "all runs": "document.querySelector('#all').click()",
    "sort": "document.querySelector(`[data-column='${[6, 0, 9][trial % 3]}']`).click()",
    "filter": "search.value = ['gesture', '', 'plif fashion'][trial % 3]; search.dispatchEvent(new Event('input'))",
}
"""What is timed, in this order, on one page."""


def make_runs(count: int, epochs: int, registry: Registry) -> Iterator[PageRun]:
    """Yields runs as the page has them: their curves rise, with noise, and τ drifts from its initial value."""
    generator = np.random.default_rng(0)
    settings = itertools.cycle(itertools.product(registry.experiments(), ("paper", "authors"), ("A", "B")))
    for group in range(-(-count // _SEEDS)):
        name, recipe, protocol = next(settings)
        changes = [f"train.lr={0.001 * (1 + group // 100):g}"] if group >= 100 else []
        resolved = registry.experiment(name, recipe=recipe, overrides=changes).for_protocol(protocol)
        for seed in range(min(_SEEDS, count - group * _SEEDS)):
            origin = "authors" if group < 8 and seed == 0 and recipe == "authors" else "trained"
            yield _make_run(f"20260101T{group:06d}Z-{name}-{seed}", resolved, protocol, seed, epochs, origin, generator)


def _make_run(
    name: str, resolved: Experiment, protocol: Any, seed: int, epochs: int, origin: Any, generator: np.random.Generator
) -> PageRun:
    spec, steps = resolved.spec, np.arange(1, epochs + 1)

    def rising(top: float, noise: float) -> tuple[float, ...]:
        curve = top * (1 - 0.6 * np.exp(-steps / 60)) + generator.normal(0, noise, epochs)
        return tuple(np.round(curve.clip(0, 1), 4).tolist())

    tau_0 = spec.neuron.tau_0 or spec.neuron.tau or 2.0
    drift = 0 if spec.neuron.tau else 1
    taus = [
        tau_0 + drift * (generator.normal(0, 1) * np.log1p(steps / 50) + generator.normal(0, 0.002, epochs).cumsum())
        for _ in range(_LAYERS)
    ]
    series = {
        "loss": tuple((0.1 * np.exp(-steps / 80) + generator.random(epochs) * 0.002).tolist()),
        "train_accuracy": rising(0.99, 0.003),
        "test_accuracy" if protocol == "A" else "validation_accuracy": rising(0.9 + 0.01 * generator.random(), 0.008),
        "lr": tuple((5e-4 * (1 + np.cos(np.pi * (steps % 64) / 64))).tolist()),
        "seconds": tuple((90 + generator.random(epochs)).tolist()),
    }
    layers = tuple(f"sn{index}" for index in range(_LAYERS))
    tau = tuple(tuple(values.clip(1.01).tolist()) for values in taus)
    curve = Curve(
        name, origin, spec.name, spec.recipe, protocol, spec.T, seed, tuple(steps.tolist()), series, layers, tau
    )
    settings = {
        key: (value, "registry/experiments/example.yaml:12")
        for key, value in flatten(spec.model_dump(mode="json")).items()
    }
    settings["train.seed"] = (seed, "--seed")
    return page_run(
        RunFacts(
            curve,
            name,
            "finished" if origin == "trained" else origin,
            spec,
            external_accuracy(curve, None),
            settings if origin == "trained" else {},
            _ENVIRONMENT,
            epochs,
        )
    )


def measure(setting: Setting) -> Iterator[Figure]:
    """Yields the size of the page, and its times in Chromium."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("no Playwright here: make test-browser installs it")
    registry = load_registry()
    runs = list(make_runs(100 if setting.quick else _RUNS, _EPOCHS, registry))
    tables = [fill_table(name, [], registry) for name in TABLES]
    page = write_page(setting.kept, build_page_data(tables, runs, __version__))
    title = f"{len(runs)} runs of {_EPOCHS} epochs"
    yield below(f"size of the page, {title}", "MB", [page.stat().st_size / 1e6], None)
    with sync_playwright() as playwright:
        switches = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=switches)
        opened, complete = [], []
        for _ in range(setting.pairs):
            tab = browser.new_page(viewport={"width": 1400, "height": 900})
            tab.add_init_script(_ON_OPEN)
            tab.goto(page.as_uri())
            opened.append(tab.evaluate("window.opened") / 1000)
            complete.append(tab.evaluate("window.complete") / 1000)
            tab.close()
        yield below(f"open, {title}: table and first curves", "s", opened, 1)
        yield below(f"open, {title}: all curves", "s", complete, None)
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.goto(page.as_uri())
        for name, action in _ACTIONS.items():
            script = (
                f"async (trial) => {{ const begin = performance.now(); {action}; return await {_PAINTED} - begin; }}"
            )
            times = [tab.evaluate(script, trial) for trial in range(setting.pairs)]
            yield below(f"redraw: {name}", "ms", times, 100)
        for width in (400, 1400):
            for scheme in ("light", "dark"):
                _take_picture(browser, page, width, scheme)
        browser.close()


def _take_picture(browser: Any, page: Path, width: int, scheme: str) -> None:
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    tab.goto(page.as_uri())
    tab.screenshot(path=str(page.with_name(f"page-{width}-{scheme}.png")), full_page=True)
    tab.close()


if __name__ == "__main__":
    run(
        "the report page with many runs",
        {"page": measure},
        recordings=False,
        peers=False,
        keeps="the page and pictures of it",
    )
