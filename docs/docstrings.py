"""A griffe extension: what docstrings hold besides Markdown, for the API pages.

Doctests stand anywhere in a docstring, and references are Sphinx's roles, which editors know.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"(?:^[ ]*>>> .*(?:\n(?![ ]*$).*)*\n?)", re.MULTILINE)
_EXAMPLE = re.compile(r"(?<=^Example:\n)(?:    (?!>>>).*\n?|[ ]*\n)+", re.MULTILINE)
_ROLE = re.compile(r":(?:mod|class|func|meth|data|attr):`(~?)([\w.]+)`")


def as_markdown(text: str) -> str:
    """Returns a docstring with its doctests as code blocks and its references as links where the target has a page."""

    def fence(block: re.Match[str]) -> str:
        lines = block[0].rstrip("\n").split("\n")
        indent = " " * (len(lines[0]) - len(lines[0].lstrip()))
        return "\n".join([f"{indent}```pycon", *lines, f"{indent}```", ""])

    def link(role: re.Match[str]) -> str:
        shown = role[2].rpartition(".")[2] if role[1] else role[2]
        return f'<autoref identifier="{role[2]}" optional><code>{shown}</code></autoref>'

    def fence_example(block: re.Match[str]) -> str:
        return f"    ```python\n{block[0].rstrip()}\n    ```\n"

    return _ROLE.sub(link, _DOCTEST.sub(fence, _EXAMPLE.sub(fence_example, text)))


class Docstrings(griffe.Extension):
    """Rewrites the docstring of each object as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called once for each object below the package."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Called once for the package."""
        self.on_object(obj=pkg)
