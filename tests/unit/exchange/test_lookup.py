"""Which network a name means: that of a run, or of an exported file or folder."""

import shutil
from pathlib import Path

import pytest
from factories import make_run

from plifctl.errors import CheckpointError, UsageError
from plifctl.exchange.lookup import find_model, zoo_folders

pytestmark = pytest.mark.usefixtures("places")
RUNS = Path("runs")


@pytest.mark.parametrize("name", ["hands1", "last"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_name_of_a_run_and_of_an_exported_network_is_refused_and_their_paths_are_taken(name: str, kind: str) -> None:
    run = make_run(RUNS, name="hands1")
    if kind == "folder":
        shutil.copytree(zoo_folders()["demo"], name)
    else:
        Path(name).write_bytes(b"")
    with pytest.raises(UsageError, match=f"{name} is the run runs/hands1 and a {kind}") as error:
        find_model(name, "best", RUNS)
    assert error.value.hint == f"to use the {kind}: ./{name}; to use the run: runs/hands1"
    assert find_model(f"./{name}", "best", RUNS) == Path(name)
    assert find_model("runs/hands1", "best", RUNS) == run.checkpoint("best")


def test_name_of_an_exported_network_that_is_only_part_of_an_id_means_the_network() -> None:
    make_run(RUNS, name="hands1")
    shutil.copytree(zoo_folders()["demo"], "hands")
    assert find_model("hands", "best", RUNS) == Path("hands")
    shutil.copytree("hands", "last")
    assert find_model("last", "best", Path("no-runs")) == Path("last")


def test_added_run_in_the_working_directory_has_one_meaning() -> None:
    shutil.copytree(zoo_folders()["demo"], "hands1")
    Path("hands1/added.json").write_text('{"schema_version": 1, "name": "hands1"}')
    assert find_model("hands1", "best", Path()) == Path("hands1")


def test_best_checkpoint_of_a_refit_that_has_not_ended_is_refused_with_the_file_of_its_latest_epoch() -> None:
    run = make_run(RUNS, name="c", protocol="C", finished=False)
    run.checkpoint("best").unlink()
    run.checkpoint("last").touch()
    with pytest.raises(CheckpointError, match=f"that of the latest is {run.checkpoint('last')}"):
        find_model("c", "best", RUNS)
    run.checkpoint("last").unlink()  # it was killed in its first epoch
    with pytest.raises(CheckpointError, match=r"written after the last epoch$"):
        find_model("c", "best", RUNS)
