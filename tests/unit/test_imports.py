"""The direction of dependence, read from the imports."""

import ast
from pathlib import Path

import plifctl

PACKAGE = Path(plifctl.__file__).parent
TREES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
}

# what a part may import of plifctl, besides errors, paths, specs and structure, which any but each other may
MAY = {
    "errors": set(),
    "structure": set(),
    "compiled": set(),
    "paths": {"errors"},
    "specbase": set(),
    "transformspecs": {"specbase"},
    "augmentspecs": {"specbase"},
    "specs": {"augmentspecs", "specbase", "structure", "transformspecs"},
    "yamltree": set(),
    "registry": {"yamltree"},
    "events": {"events"},
    "cache": {"cache", "events"},
    "splits": set(),
    "snn": {"snn"},
    "training": {"training", "snn", "splits", "evaluation"},
    "evaluation": {"snn"},
    "operations": {"snn"},
    "anatomy": set(),
    "modelfile": {"snn"},
    "runs": {"runs", "registry", "training"},
    "panel": {"runs"},
    "report": {"report", "runs", "registry", "yamltree", "snn", "training"},  # figures simulate a neuron
    "statistics": {"cache"},
    "picture": {"statistics"},
    "console": set(),
    "cli": {
        *("cli", "console", "registry", "cache", "events", "splits", "training", "evaluation", "runs", "report"),
        *("statistics", "picture", "panel", "anatomy", "operations", "modelfile", "snn"),
    },
    "__main__": {"cli"},
    "__init__": set(),
}
GROUND = {"augmentspecs", "compiled", "errors", "paths", "specbase", "specs", "structure", "transformspecs"}


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import says less than the full name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(module: str) -> str:
    return module.split(".")[0]


def test_each_part_imports_only_what_it_may() -> None:
    wrong = []
    for module, tree in TREES.items():
        for name in imports(tree):
            if name.startswith("plifctl.") and not name.startswith("plifctl.__"):
                target = name.split(".")[1]
                allowed = MAY[part(module)] | (GROUND if part(module) not in GROUND else set())
                if target not in allowed:
                    wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_heavy_packages_stay_where_they_belong() -> None:
    homes = {
        "h5py": {"cache"},
        "hdf5plugin": {"cache"},
        "typer": {"cli"},
        "torch": {"snn", "training", "evaluation", "operations", "runs", "modelfile", "report", "cli"},
        "yaml": {"yamltree", "runs"},
        "PIL": {"picture"},
        "matplotlib": {"report"},
        "tensorboard": {"runs"},
    }
    wrong = []
    for module, tree in TREES.items():
        for name in imports(tree):
            package = name.split(".")[0]
            if package in homes and part(module) not in homes[package]:
                wrong.append(f"{module} imports {package}")
    assert wrong == []


def test_only_the_console_and_the_command_line_print() -> None:
    wrong = [
        module
        for module, tree in TREES.items()
        if part(module) not in ("console", "cli")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert wrong == []


def test_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['plifctl', '--help']\n"
        "from plifctl.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'h5py', 'numpy', 'pydantic', 'yaml', 'numba', 'tonic', 'PIL'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


def test_no_file_is_longer_than_500_lines() -> None:
    long = {path.name for path in PACKAGE.rglob("*.py") if len(path.read_text(encoding="utf-8").splitlines()) > 500}
    assert long == set()
