"""The direction of dependence, read from the imports."""

import ast
import re
from pathlib import Path

import pytest

import plifctl

PACKAGE = Path(plifctl.__file__).parent

# what each package may import of plifctl, besides errors, paths, files, jit, units and config, which are open to all
MAY_IMPORT = {
    "errors": set(),
    "jit": set(),
    "paths": set(),
    "files": set(),
    "units": set(),
    "config": set(),
    "data": set(),
    "cache": {"data"},
    "snn": set(),
    "evaluation": {"snn"},
    "training": {"snn", "evaluation", "cache"},
    "runs": {"training", "snn"},
    "exchange": {"snn", "evaluation", "training", "runs"},
    "report": {"runs", "snn", "evaluation", "training", "cache"},
    "pipeline": {"data", "cache", "snn", "evaluation", "training", "runs", "exchange", "report"},
    "sweep": {"pipeline", "cache", "data", "evaluation", "report", "runs", "training"},
    "cli": {"sweep", "pipeline", "data", "cache", "snn", "evaluation", "training", "runs", "exchange", "report"},
    "__main__": {"cli"},
    "__init__": {"pipeline", "data", "cache", "runs", "report", "snn"},  # all but the first for the types of its values
}
BASE = ("errors", "jit", "paths", "files", "units", "config")
"""Each of these may import those before it, and every other package all of them."""


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    """The syntax tree of each module."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


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


def allowed(package: str) -> set[str]:
    base = BASE[: BASE.index(package)] if package in BASE else BASE
    return {package, *base, *MAY_IMPORT[package]}


def test_packages_import_only_in_the_direction_of_the_data(trees: dict[str, ast.Module]) -> None:
    wrong = [
        f"{module} imports {name}"
        for module, tree in trees.items()
        for name in imports(tree)
        if name.startswith("plifctl.") and not name.startswith("plifctl.__")
        if name.split(".")[1] not in allowed(part(module))
    ]
    assert wrong == []


def test_architecture_page_states_what_each_package_may_import() -> None:
    page = (PACKAGE.parent / "docs/architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \|(.*)\|$", page, re.MULTILINE)
    stated = {package: {name.strip() for name in names.split(",") if name.strip()} for package, names in rows}
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert stated == {package: names for package, names in MAY_IMPORT.items() if package in folders}


def test_heavy_libraries_stay_in_their_packages(trees: dict[str, ast.Module]) -> None:
    homes = {
        "h5py": {"cache", "data.formats.hdf5"},
        "hdf5plugin": {"cache", "data.formats.hdf5"},
        "typer": {"cli"},
        "rich": {"cli"},
        "torch": {"snn", "training", "evaluation", "exchange", "runs", "report", "pipeline", "cli"},
        "yaml": {"config", "runs", "exchange"},
        "PIL": {"report", "data.formats.images"},
        "nir": {"exchange.nir"},
        "onnx": {"exchange.onnx"},
        "onnxruntime": {"exchange.onnx"},
        "submitit": {"sweep.slurm"},
        "ray": {"sweep.ray"},
        "matplotlib": {"report"},
        "tensorboard": {"runs"},
    }
    wrong = [
        f"{module} imports {name}"
        for module, tree in trees.items()
        for name in imports(tree)
        if not homes.get(name.split(".")[0], {module}) & {module, part(module)}
    ]
    assert wrong == []


def test_only_the_command_line_prints(trees: dict[str, ast.Module]) -> None:
    wrong = [
        module
        for module, tree in trees.items()
        if part(module) != "cli"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert wrong == []


@pytest.mark.subprocess
def test_help_imports_no_heavy_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['plifctl', '--help']\n"
        "from plifctl.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'h5py', 'numpy', 'pydantic', 'yaml', 'numba', 'tonic', 'PIL'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


@pytest.mark.subprocess
def test_commands_that_look_after_runs_import_no_torch() -> None:
    import subprocess
    import sys

    of_runs = ["cli.runs", "pipeline.runs", "pipeline.compare_runs", "pipeline.run_files", "pipeline.external_runs"]
    modules = [*of_runs, "cli.sweep", "pipeline.new", "pipeline.missing", "sweep.dry_run"]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(f'plifctl.{name}')\n"
        "    if 'torch' in sys.modules: sys.exit(name)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""


def test_loops_that_threads_import_enter_numba_by_one_module(trees: dict[str, ast.Module]) -> None:
    direct = {
        module
        for module, tree in trees.items()
        if module.startswith(("data.", "cache.")) and {part(name) for name in imports(tree)} & {"numba", "llvmlite"}
    }
    assert direct == set()
