"""Fonts by the characters of a text."""

from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import pytest

from plifctl.report import fonts
from plifctl.report.fonts import fonts_for


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fonts of matplotlib under other names: one with Greek, one damaged, one with mathematical letters."""
    folder = Path(mpl.get_data_path()) / "fonts/ttf"
    files = {"DejaVu Sans": "cmr10.ttf", "A damaged one": __file__, "B": "DejaVuSans.ttf", "C": "STIXGeneral.ttf"}
    files["Last Resort High-Efficiency"] = "LastResortHE-Regular.ttf"
    entries = [
        SimpleNamespace(name=name, fname=str(folder / file), style="normal", weight=400) for name, file in files.items()
    ]
    manager = SimpleNamespace(ttflist=entries, get_font_names=lambda: list(files))
    monkeypatch.setattr(fonts, "fontManager", manager)
    for cached in (fonts._fonts_with, fonts._candidates, fonts._characters):
        cached.cache_clear()


@pytest.mark.usefixtures("installed")
def test_fonts_for_text_takes_the_first_font_that_has_each_missing_character() -> None:
    assert fonts_for("abc") == ["DejaVu Sans"]
    assert fonts_for("жест") == ["DejaVu Sans", "B"]
    assert fonts_for("ж\U0001d4d0") in (["DejaVu Sans", "B"], ["DejaVu Sans", "B", "C"])


@pytest.mark.usefixtures("installed")
def test_fonts_for_characters_that_no_font_has_are_left_to_the_first() -> None:
    assert fonts_for("\U0010fffd") == ["DejaVu Sans"]


def test_fonts_for_latin_opens_no_other_font() -> None:
    assert fonts_for("wave, left") == ["DejaVu Sans"]
