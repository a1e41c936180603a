"""Checks wheel and sdist: ``make dist``.

Their version is that of the code and of the tag at HEAD, if there is one; they hold everything that they need; and the
wheel works in an environment of its own, away from the checkout.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tracked(*folders: str) -> set[str]:
    """Returns the files under folders that git tracks."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *folders]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name for name in listed.split("\0") if name}


def check_content(wheel: Path, sdist: Path) -> None:
    """Exits if a file of the package or its registry is missing in the wheel, or one of the project's in the sdist."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    package, registry = tracked("plifctl"), tracked("registry")
    wanted = package | {name.replace("registry/", "plifctl/_registry/", 1) for name in registry}
    if missing := sorted(wanted - in_wheel):
        sys.exit(f"{wheel.name} lacks {', '.join(missing)}")
    if missing := sorted((package | registry | tracked("tests", "docs", "benchmarks", "Makefile")) - in_sdist):
        sys.exit(f"{sdist.name} lacks {', '.join(missing)}")
    if extra := sorted(name for name in in_wheel if not name.startswith(("plifctl/", "plifctl-"))):
        sys.exit(f"{wheel.name} also installs {', '.join(extra)}")


def check_tag(version: str) -> None:
    """Exits if HEAD is tagged as another version."""
    command = ["git", "-C", str(ROOT), "tag", "--points-at", "HEAD", "v*"]
    tags = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if tags not in ([], [f"v{version}"]):
        sys.exit(f"the version is {version}, but HEAD is tagged {', '.join(tags)}")


def check_installed(wheel: Path, version: str) -> None:
    """Installs the wheel into a new environment and takes the first steps of a user there."""
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "venv"
        venv.create(bare, with_pip=True)
        scripts = bare / ("Scripts" if sys.platform == "win32" else "bin")
        install = [scripts / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-c", ROOT / "constraints.txt", wheel], check=True)

        def run(*arguments: str) -> str:
            return subprocess.run(
                [scripts / "plifctl", *arguments], check=True, cwd=folder, stdout=subprocess.PIPE, text=True
            ).stdout

        if version not in (found := run("--version")):
            sys.exit(f"plifctl --version of the wheel says {found.strip()}, expected {version}")
        if "gesture-plif" not in run("ls"):
            sys.exit("plifctl ls of the wheel lists no gesture-plif")
        (Path(folder) / "data_cache").mkdir()
        run("synthesize", "raw")
        run("prepare", "synthetic-gesture", "--T", "4", "--raw", "raw")
        if not list((Path(folder) / "data_cache").rglob("*.h5")):
            sys.exit("plifctl prepare of the wheel wrote no cache")
        run("report", "--html", "page")  # its assets lie in the package


def main(folder: Path) -> None:
    """Checks the one wheel and the one sdist in a folder."""
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    version = wheel.name.split("-")[1]
    if sdist.name != f"plifctl-{version}.tar.gz":
        sys.exit(f"{wheel.name} and {sdist.name} are of different versions")
    check_tag(version)
    check_content(wheel, sdist)
    check_installed(wheel.resolve(), version)
    print(f"{wheel.name}, {sdist.name}: complete, and the wheel works by itself")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
