"""Prints docs/paper-and-code.md, what text and authors' code say of each choice: ``make reference`` writes the file."""

from plifctl.config.base import flatten
from plifctl.config.choices import Recipe
from plifctl.config.lookup import load_registry
from plifctl.config.sources import PAPER_DATA_SETS, Choice, load_choices

_INTRODUCTION = """# The paper and the code

What the paper's text says, what the authors' code does, and what plifctl does, for every choice of the paper's
experiments. Written by `make reference` from `registry/sources.yaml` and the experiments.

The recipe `paper` follows the text. Where the text is silent or ambiguous, it has the value of the authors' code or one
of our own. `plifctl show NAME` prints the source of each value:

* `text`: the paper states it.
* `authors`: the text does not; the value is that of the authors' code.
* `choice`: ours, for the reason that is given.

The recipe `authors` does what the authors' code did. Where it has another value, both are shown.
"""

_RECIPES: tuple[Recipe, ...] = ("paper", "authors")
_HEAD = ("choice", "text", "authors' code", "source", "ours")


def page() -> str:
    """Returns the text of the page."""
    registry = load_registry()
    names = registry.experiments()
    specs = [(recipe, registry.experiment(name, recipe=recipe).spec) for recipe in _RECIPES for name in names]
    values = [(recipe, spec.dataset.name, flatten(spec.model_dump(mode="json"))) for recipe, spec in specs]
    titles = {name: registry.dataset(name).dataset.title for name in PAPER_DATA_SETS}

    def found(choice: Choice, key: str, recipe: Recipe) -> str:
        """The values of a key in the experiments that a choice is about."""
        every = (tree.get(key) for of, name, tree in values if of == recipe and name in choice.data_sets)
        return ", ".join(dict.fromkeys(f"`{_text(value)}`" for value in every if value is not None))

    def ours(choice: Choice, key: str) -> str:
        paper, authors = (found(choice, key, recipe) for recipe in _RECIPES)
        return f"`{key}`: {paper}" + ("" if paper == authors else f"; recipe `authors`: {authors}")

    lines = [_HEAD, ("---",) * len(_HEAD)]
    for name, choice in load_choices(registry.folders).items():
        about = [titles[one] for one in choice.data_sets if titles[one] not in name]
        some = about and choice.data_sets != PAPER_DATA_SETS
        reasons = [*(ours(choice, key) for key in choice.keys), choice.why]
        title = f"{name} ({', '.join(about)})" if some else name
        lines.append((title, choice.text, choice.authors, f"`{choice.source}`", "<br>".join(filter(None, reasons))))
    return _INTRODUCTION + "\n" + "".join(f"| {' | '.join(map(_cell, line))} |\n" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _text(value: object) -> str:
    """Returns a value as YAML has it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    print(page(), end="")
