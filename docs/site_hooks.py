"""mkdocs hooks: pages of the site that lie outside ``docs/``.

Pages link to each other by their paths in the repository, so that they work there, too. Here README.md, CONTRIBUTING.md
and so on become pages of the site, links to them lead to those, and links to other files of the repository become text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "RELEASING.md": "releasing.md",
    "registry/README.md": "registry.md",
}
"""Pages outside docs/: path in the repository → path in the site."""

_SOURCES = {page: source for source, page in OUTSIDE.items()}
_LINK = re.compile(r"(!?\[[^\]]*\])\(([^)#:\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie outside docs/."""
    from mkdocs.structure.files import File

    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites links from paths in the repository to paths in the site."""
    place = page.file.src_uri
    source = _SOURCES.get(place, f"docs/{place}")

    def rewrite(link: re.Match[str]) -> str:
        text, path, anchor = link[1], link[2], link[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        inside = OUTSIDE.get(target, target.removeprefix("docs/"))
        if target == inside and (ROOT / target).exists():
            return text[1:-1]  # a file of the repository that is no page
        return f"{text}({posixpath.relpath(inside, posixpath.dirname(place) or '.')}{anchor})"

    return _LINK.sub(rewrite, markdown)
