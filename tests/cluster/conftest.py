"""A real SLURM and a real Ray for the tests of engines; these are skipped where one cannot be started."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_SCRIPT = Path(__file__).with_name("slurm.sh")
_RUNNING = Path("/tmp/plifctl-slurm")  # of make slurm-start


def _slurm(action: str, folder: Path) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryFile("w+") as output:  # not a pipe: the daemons would keep it open
        code = subprocess.run(
            [_SCRIPT, action, folder], stdout=output, stderr=output, timeout=120, check=False
        ).returncode
        output.seek(0)
        return subprocess.CompletedProcess([], code, output.read())


@pytest.fixture(scope="session")
def slurm_conf() -> Iterator[Path]:
    """Configuration of a SLURM of one node with two cores."""
    if (_RUNNING / "slurm.conf").exists():
        yield _RUNNING / "slurm.conf"
        return
    parent = Path(tempfile.mkdtemp(prefix="plifctl-"))  # not pytest's, which the user munge cannot enter
    parent.chmod(0o711)
    folder = parent / "slurm"
    try:
        started = _slurm("start", folder)
        if started.returncode == 3:
            pytest.skip(started.stdout.strip())
        assert started.returncode == 0, started.stdout
        yield folder / "slurm.conf"
    finally:
        stopped = _slurm("stop", folder)
        shutil.rmtree(parent)
    assert stopped.returncode == 0, stopped.stdout


@pytest.fixture
def slurm(slurm_conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM's commands find the one of the tests."""
    monkeypatch.setenv("SLURM_CONF", str(slurm_conf))


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[Any]:
    """A Ray cluster whose first node has no cores: each test adds its own."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = cluster_utils.Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 2**27}
    )
    yield cluster
    cluster.shutdown()


@pytest.fixture
def add_node(ray_cluster: Any) -> Iterator[Callable[..., Any]]:
    """Adds a node to the Ray cluster; removed after the test if it is still there."""
    import ray

    nodes = []

    def add(num_cpus: int) -> Any:
        nodes.append(ray_cluster.add_node(num_cpus=num_cpus, object_store_memory=2**27))
        return nodes[-1]

    yield add
    ray.shutdown()
    for node in nodes:
        if node in ray_cluster.list_all_nodes():
            ray_cluster.remove_node(node)
