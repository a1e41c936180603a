"""Missing raw files on the command line: downloaded where possible, else exact instructions."""

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import serving
from factories import idx_files
from serving import Server

from plifctl.config.choices import OWN_LAYOUTS
from plifctl.data import datasets

Plifctl = Callable[..., Any]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of tiny files in place of MNIST's; the first URL of each file, /broken/, does not exist."""
    layout = datasets._LAYOUTS["mnist"][0]
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with serving.serving() as found:
        files = idx_files()
        parts = {part: names[0] for part, names in layout.part_files.items()}
        found.files = {f"/{name}": content for name, content in files.items()}
        addresses = {part: (f"{found.url}/broken/{name}", f"{found.url}/{name}") for part, name in parts.items()}
        md5 = {part: (hashlib.md5(files[name]).hexdigest(),) for part, name in parts.items()}
        for attribute, value in (("urls", addresses), ("md5", md5), ("nbytes", {})):
            monkeypatch.setattr(layout, attribute, value)
        yield found


def there(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


class TestDownloading:
    def test_prepare_downloads_missing_files_once(self, plifctl: Plifctl, server: Server, places: Path) -> None:
        result = plifctl("prepare", "mnist")
        assert result.code == 0
        assert "30 training and 10 test samples (raw files verified, set incomplete)" in result.out
        folder = places / "data_cache/raw/mnist"
        assert there(folder) == idx_files()
        assert f"downloading MNIST to {folder}: 4 files, size unknown" in result.err
        assert f"train-images-idx3-ubyte.gz from {server.url}/broken/train" in result.err
        assert f"{server.url}/broken/train-images-idx3-ubyte.gz: HTTP 404" in result.err
        asked = len(server.asked)
        assert plifctl("prepare", "mnist").out.startswith("found:")
        assert len(server.asked) == asked

    def test_prepare_raw_downloads_to_the_named_folder(self, plifctl: Plifctl, server: Server, places: Path) -> None:
        (places / "new/raw").mkdir(parents=True)
        assert plifctl("prepare", "mnist", "--raw", places / "new/raw").code == 0
        assert there(places / "new/raw") == idx_files()
        assert not (places / "data_cache/raw").exists()

    def test_prepare_downloads_to_the_folder_of_the_environment(
        self, plifctl: Plifctl, server: Server, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PLIFCTL_RAW_DIR", str(places / "all"))
        result = plifctl("prepare", "mnist")
        assert result.code == 4
        assert "no such folder" in result.err  # its disk may not be mounted
        (places / "all").mkdir()
        assert plifctl("prepare", "mnist").code == 0
        assert there(places / "all/mnist") == idx_files()

    def test_prepare_downloads_only_the_missing_file(self, plifctl: Plifctl, server: Server, places: Path) -> None:
        folder = places / "raw/MNIST"
        folder.mkdir(parents=True)
        missing = "t10k-labels-idx1-ubyte.gz"
        for name, content in idx_files().items():
            if name != missing:
                (folder / name).write_bytes(content)
        result = plifctl("prepare", "mnist", "--raw", places / "raw", "--no-download")
        assert result.code == 4
        assert f"{missing} missing" in result.err
        assert plifctl("prepare", "mnist", "--raw", places / "raw").code == 0
        assert {asked.path for asked in server.asked} == {f"/broken/{missing}", f"/{missing}"}
        assert there(folder) == idx_files()

    def test_prepare_prefers_a_complete_set_to_an_incomplete_one(
        self, plifctl: Plifctl, server: Server, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert plifctl("prepare", "mnist").code == 0
        asked = len(server.asked)
        (places / "all").mkdir()
        (places / "all/t10k-labels-idx1-ubyte.gz").write_bytes(b"")
        monkeypatch.setenv("PLIFCTL_RAW_DIR", str(places / "all"))
        assert plifctl("prepare", "mnist").out.startswith("found:")
        assert len(server.asked) == asked

    def test_prepare_missing_raw_folder_is_not_created(self, plifctl: Plifctl, server: Server, places: Path) -> None:
        result = plifctl("prepare", "mnist", "--raw", places / "new")
        assert result.code == 4
        assert f"mkdir -p {places / 'new'}" in result.err
        assert server.asked == []
        assert not (places / "new").exists()

    def test_train_prepare_downloads_missing_files(
        self, plifctl: Plifctl, server: Server, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (places / "own/networks").mkdir(parents=True)
        (places / "own/networks/small.yaml").write_text(
            "small:\n  structure: FC100-SN-APk10s10\n  dropout: 0.0\n  batch_norm: over-time\n"
        )
        monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "own"))
        options = ("--set", "network=small", "--set", "T=1", "--set", "train.batch_size=10", "--epochs", 1)
        assert plifctl("train", "mnist-plif", *options).code == 5
        assert plifctl("train", "mnist-plif", *options, "--prepare", "--no-download").code == 4
        assert plifctl("train", "mnist-plif", *options, "--no-download").code == 2
        assert server.asked == []
        (places / "raw").mkdir()
        assert plifctl("train", "mnist-plif", *options, "--prepare", "--raw", places / "raw").code == 0
        assert there(places / "raw") == idx_files()
        assert list((places / "data_cache/mnist").glob("*.h5"))

    def test_prepare_json_after_a_download_is_one_document(self, plifctl: Plifctl, server: Server) -> None:
        assert json.loads(plifctl("prepare", "mnist", "--json").out)["state"] == "built"


class TestNotDownloading:
    def test_prepare_dry_run_shows_the_download_and_does_nothing(
        self, plifctl: Plifctl, server: Server, places: Path
    ) -> None:
        folder = places / "data_cache/raw/mnist"
        result = plifctl("prepare", "mnist", "--dry-run")
        assert result.code == 0
        assert result.out.startswith(f"download: MNIST to {folder}, 4 files")
        plan = json.loads(plifctl("prepare", "mnist", "--dry-run", "--json").out)
        assert (plan["state"], plan["folder"], len(plan["files"])) == ("download", str(folder), 4)
        assert plan["files"][0]["urls"][1] == f"{server.url}/train-images-idx3-ubyte.gz"
        assert plifctl("prepare", "mnist", "--dry-run", "--no-download").code == 4
        assert server.asked == []
        assert not folder.exists()

    def test_prepare_no_download_gives_instructions(self, plifctl: Plifctl, server: Server, places: Path) -> None:
        (places / "new").mkdir()
        result = plifctl("prepare", "mnist", "--raw", places / "new", "--no-download")
        assert result.code == 4
        assert "hint: omit --no-download" in result.err
        assert f"then type: plifctl prepare mnist --raw {places / 'new'}" in result.err
        assert not list((places / "new").iterdir())
        assert server.asked == []

    def test_prepare_failed_download_error_names_each_url(self, plifctl: Plifctl, server: Server, places: Path) -> None:
        server.files["/t10k-images-idx3-ubyte.gz"] = b"another"
        result = plifctl("prepare", "mnist", "--json")
        assert result.code == 4
        error = json.loads(result.out)["error"]
        assert f"{server.url}/t10k-images-idx3-ubyte.gz: md5" in error["message"]
        assert f"{server.url}/broken/t10k-images-idx3-ubyte.gz: HTTP 404" in error["message"]
        assert "by hand" in error["hint"]
        assert "Traceback" not in result.err
        server.files["/t10k-images-idx3-ubyte.gz"] = idx_files()["t10k-images-idx3-ubyte.gz"]
        asked = len(server.asked)
        assert plifctl("prepare", "mnist").code == 0
        assert all("t10k" in one.path for one in server.asked[asked:])

    def test_prepare_user_data_set_is_not_downloaded(
        self, plifctl: Plifctl, server: Server, places: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (places / "own/datasets").mkdir(parents=True)
        shipped = Path(__file__).resolve().parents[2] / "registry/datasets/mnist.yaml"
        (places / "own/datasets/mine.yaml").write_text(shipped.read_text().replace("name: mnist", "name: mine"))
        monkeypatch.setenv("PLIFCTL_REGISTRY", str(places / "own"))
        result = plifctl("prepare", "mine")
        assert result.code == 4
        assert "no raw data of MNIST" in result.err
        assert server.asked == []


def test_prepare_files_without_url_gives_instructions(plifctl: Plifctl, places: Path) -> None:
    result = plifctl("prepare", "gesture", "--T", 20, "--dry-run")
    assert result.code == 4
    folder = places / "data_cache/raw/gesture"
    for text in (
        "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794",
        "DvsGesture.tar.gz (md5 8a5c71fb11e24e5ca5b11866ca6c00a1)",
        f"mkdir -p {folder} ",
        "then type: plifctl prepare gesture --T 20",
    ):
        assert text in result.err
    folder.mkdir(parents=True)
    (folder / "DvsGesture.tar.gz").write_bytes(b"no archive")
    assert f"{folder}/DvsGesture.tar.gz" in plifctl("prepare", "gesture", "--T", 20).err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_prepare_stopped_by_a_signal_keeps_the_part_and_is_resumed(
    plifctl: Plifctl, server: Server, places: Path, number: signal.Signals, code: int
) -> None:
    path = "/train-images-idx3-ubyte.gz"

    def stopped(handler: Any, content: bytes) -> None:
        serving.right(handler, content, 5000)
        handler.wfile.flush()
        part = places / "data_cache/raw/mnist/train-images-idx3-ubyte.gz.part"
        for _ in range(1000):
            if part.exists() and part.stat().st_size == 5000:
                break
            handler.served.resume.wait(0.01)
        os.kill(os.getpid(), number)
        handler.served.resume.wait(20)

    server.ways[path] = [stopped]
    assert plifctl("prepare", "mnist").code == code
    folder = places / "data_cache/raw/mnist"
    (part,) = folder.glob("*.part")
    assert part.read_bytes() == server.files[path][:5000]
    assert plifctl("prepare", "mnist").code == 0
    assert there(folder) == idx_files()
    assert server.sent(path) == len(server.files[path])


def test_every_data_set_has_md5_and_urls() -> None:
    found = {name: layout.remote_files(layout.part_files) for name, (layout, *_) in datasets._LAYOUTS.items()}
    assert {name: len(files) for name, files in found.items()} == {
        "mnist": 4,
        "fashion-mnist": 4,
        "cifar10": 1,
        "nmnist": 2,
        "cifar10dvs": 10,
        "gesture": 1,
        "synthetic-gesture": 0,
        **dict.fromkeys(OWN_LAYOUTS, 0),
    }
    assert [file.urls for file in found.pop("gesture")] == [()]
    for files in found.values():
        for file in files:
            assert len(file.md5) == 32
            assert file.urls
            assert all(url.startswith(("https://", "http://")) for url in file.urls)
    urls = [url for files in found.values() for file in files for url in file.urls]
    assert len(set(urls)) == len(urls)
    assert [file.name for file in found["nmnist"]] == ["Train.zip", "Test.zip"]


@pytest.mark.real
def test_real_mnist_has_the_published_sizes_and_md5(shared: Path) -> None:
    for file in datasets.Mnist.remote_files(datasets.Mnist.part_files):
        content = (shared / "data/MNIST" / file.name).read_bytes()
        assert (len(content), hashlib.md5(content).hexdigest()) == (file.nbytes, file.md5)
