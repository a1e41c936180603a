"""Downloads from a server that drops connections, announces wrong sizes, changes files and hangs."""

import hashlib
import json
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serving
from serving import Server

from plifctl.data import download as module
from plifctl.data.download import ATTEMPTS, RemoteFile, download
from plifctl.errors import ChecksumError, Interrupted, MachineError, RawDataError

CONTENT = random.Random(0).randbytes(300_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture(params=["HTTP/1.0", "HTTP/1.1"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving.serving(request.param) as found:
        found.files["/a"] = found.files["/mirror"] = CONTENT
        yield found


class Getting:
    """Downloads one file, and records the pauses between attempts."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder, self.pauses = server, folder, list[float]()
        self.file, self.part = folder / "file.gz", folder / "file.gz.part"

    def __call__(self, *paths: str, md5: str = MD5, timeout: float = 5, **options: Any) -> None:
        urls = tuple(path if "://" in path else self.server.url + path for path in paths or ("/a",))
        wanted = [RemoteFile(self.file.name, urls, md5, page="https://example.org/page")]
        download(wanted, self.folder, timeout=timeout, sleep=self.pauses.append, **options)
        assert self.file.read_bytes() == CONTENT
        assert {path.name for path in self.folder.iterdir()} <= {self.file.name, ".download.lock"}

    def fails(self, *paths: str, error: type[RawDataError] = RawDataError, **options: Any) -> RawDataError:
        with pytest.raises(RawDataError) as caught:
            self(*paths, **options)
        assert type(caught.value) is error
        assert not self.file.exists()
        for path in paths or ("/a",):
            assert path in str(caught.value)
        assert str(self.file) in caught.value.hint
        assert "https://example.org/page" in caught.value.hint
        return caught.value


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Getting:
    return Getting(server, tmp_path / "to" / "here")


class TestDownload:
    def test_download_reports_progress_up_to_the_size(self, get: Getting, server: Server) -> None:
        reports: list[tuple[str, int, int | None]] = []
        get(progress=lambda *what: reports.append(what))
        assert reports[-1] == ("file.gz", len(CONTENT), len(CONTENT))
        assert [done for _, done, _ in reports] == sorted(done for _, done, _ in reports)
        (asked,) = server.asked
        assert "plifctl/" in asked.headers["user-agent"]
        assert "range" not in asked.headers

    def test_download_existing_file_is_not_requested(self, get: Getting, server: Server) -> None:
        get()
        get()
        assert len(server.asked) == 1

    def test_download_without_announced_size_succeeds(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.unannounced()]
        get()

    def test_download_follows_redirects(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.redirect("/b", 301)]
        server.ways["/b"] = [serving.redirect(f"{server.url}/mirror", 307)]
        get()
        assert [asked.path for asked in server.asked] == ["/a", "/b", "/mirror"]

    def test_download_uses_the_proxy_of_the_environment(
        self, get: Getting, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("http_proxy", server.url)
        server.files["http://nowhere.invalid/x"] = CONTENT
        get("http://nowhere.invalid/x")

    def test_download_by_two_processes_receives_the_file_once(
        self, get: Getting, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.ways["/a"] = [serving.hang(1000)]
        threads = [threading.Thread(target=get) for _ in range(2)]
        with caplog.at_level(logging.WARNING):
            for thread in threads:
                thread.start()
            while "waiting for it" not in caplog.text:
                time.sleep(0.01)
        server.resume.set()
        for thread in threads:
            thread.join()
        assert get.file.read_bytes() == CONTENT
        assert server.sent("/a") == len(CONTENT)


class TestResume:
    @pytest.mark.parametrize("times", [1, 2, ATTEMPTS - 1])
    def test_dropped_connection_is_resumed_without_repeating_bytes(
        self, get: Getting, server: Server, times: int
    ) -> None:
        server.ways["/a"] = [serving.drop(50_000)] * times
        get()
        assert server.sent("/a") == len(CONTENT)
        starts = [asked.headers.get("range") for asked in server.asked]
        assert starts == [None, *(f"bytes={50_000 * n}-" for n in range(1, times + 1))]
        assert get.pauses == [2.0**n for n in range(times)]

    def test_reset_connection_is_resumed(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.reset(100_000), serving.reset(0)]
        get()
        assert server.sent("/a") <= len(CONTENT) + 100_000

    def test_failed_download_keeps_the_part_for_the_next_command(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.drop(10_000), *[serving.status(503)] * (ATTEMPTS - 1)]
        assert "type the same command again later to resume" in get.fails().hint
        assert get.part.read_bytes() == CONTENT[:10_000]
        get()
        assert server.sent("/a") == len(CONTENT)

    def test_server_that_sends_much_may_fail_often(
        self, get: Getting, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_PROGRESS_BYTES", 20_000)
        server.ways["/a"] = [serving.drop(20_000)] * 14
        get()
        assert server.sent("/a") == len(CONTENT)
        assert set(get.pauses) == {1.0}
        get.file.unlink()
        server.ways["/a"] = [serving.drop(20_000), *[serving.drop(0)] * 100]
        get.fails()

    def test_server_that_sends_nothing_is_given_up(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.drop(1)] * 100
        assert f"after {ATTEMPTS} of 300,000 bytes" in str(get.fails())
        assert len(server.asked) == ATTEMPTS

    def test_changed_file_is_downloaded_from_the_start(self, get: Getting, server: Server) -> None:
        server.files["/a"] = bytes(300_000)
        server.ways["/a"] = [serving.drop(50_000)]

        def progress(name: str, done: int, total: int | None) -> None:
            server.files["/a"] = CONTENT

        get(progress=progress)
        first, second = server.asked
        assert second.headers["if-range"] == f'"{hash(bytes(300_000)):x}"'
        assert (first.status, second.status, second.sent) == (200, 200, len(CONTENT))

    @pytest.mark.parametrize("tag", [None, 'W/"1"'])
    def test_changed_file_without_entity_tag_is_found_by_md5(
        self, get: Getting, server: Server, tag: str | None
    ) -> None:
        server.files["/a"], server.tags["/a"] = bytes(300_000), tag
        server.ways["/a"] = [serving.drop(50_000)]

        def progress(name: str, done: int, total: int | None) -> None:
            server.files["/a"] = CONTENT

        get(progress=progress)
        assert [asked.status for asked in server.asked] == [200, 206, 200]
        assert "if-range" not in server.asked[1].headers

    def test_download_without_entity_tag_is_resumed(self, get: Getting, server: Server) -> None:
        server.tags["/a"] = None
        server.ways["/a"] = [serving.drop(50_000)]
        get()
        assert server.sent("/a") == len(CONTENT)

    @pytest.mark.parametrize("way", [serving.whole, serving.unannounced()])
    def test_server_that_ignores_ranges_sends_the_file_again(
        self, get: Getting, server: Server, way: serving.Way
    ) -> None:
        server.ways["/a"] = [serving.drop(50_000), way]
        get()
        assert server.sent("/a") == 50_000 + len(CONTENT)

    def test_other_range_than_requested_is_discarded(
        self, get: Getting, server: Server, caplog: pytest.LogCaptureFixture
    ) -> None:
        server.ways["/a"] = [serving.drop(50_000), serving.other_part]
        with caplog.at_level(logging.INFO):
            get()
        assert "received another range of the file, requested from byte 50,000 on" in caplog.text
        assert [asked.headers.get("range") for asked in server.asked] == [None, "bytes=50000-", None]

    def test_part_longer_than_the_file_is_discarded(self, get: Getting, server: Server) -> None:
        get.folder.mkdir(parents=True)
        get.part.write_bytes(bytes(400_000))
        Path(f"{get.part}.json").write_text(json.dumps({"url": f"{server.url}/a", "mark": None}))
        get()
        assert [asked.status for asked in server.asked] == [416, 200]

    def test_complete_part_needs_no_download(self, get: Getting, server: Server) -> None:
        get.folder.mkdir(parents=True)
        get.part.write_bytes(CONTENT)
        Path(f"{get.part}.json").write_text(json.dumps({"url": f"{server.url}/a", "mark": None}))
        get()
        assert server.sent("/a") == 0

    @pytest.mark.parametrize("note", ["", "[]", '{"url": 3}', '{"mark": null}', '{"url": "http://x/", "mark": null}'])
    def test_part_of_unknown_origin_is_not_resumed(self, get: Getting, server: Server, note: str) -> None:
        get.folder.mkdir(parents=True)
        get.part.write_bytes(bytes(1000))
        Path(f"{get.part}.json").write_text(note)
        get()
        assert "range" not in server.asked[0].headers

    def test_interrupted_download_keeps_the_part(self, get: Getting, server: Server) -> None:
        def stop(name: str, done: int, total: int | None) -> None:
            if done > 100_000:
                raise Interrupted(2, "stopped")

        with pytest.raises(Interrupted):
            get(progress=stop)
        kept = get.part.read_bytes()
        assert len(kept) > 100_000
        assert CONTENT.startswith(kept)
        assert not get.file.exists()
        get()
        assert server.asked[-1].headers["range"] == f"bytes={len(kept)}-"
        assert server.asked[-1].sent == len(CONTENT) - len(kept)


class TestWrongContent:
    def test_more_bytes_announced_than_sent_succeeds_by_md5(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.announce(1000)]
        get()
        assert server.sent("/a") == len(CONTENT)  # the request for more got HTTP 416, and the md5 was right
        server.ways["/mirror"] = [serving.announce(1000)] * 100
        get.file.unlink()
        get("/mirror")

    def test_fewer_bytes_announced_than_sent_succeeds_by_md5(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.announce(-1000)]
        get()
        assert server.sent("/a") == len(CONTENT)

    def test_fewer_bytes_announced_of_another_file_is_an_error(self, get: Getting, server: Server) -> None:
        server.files["/a"] = bytes(5000)
        server.ways["/a"] = [serving.announce(-1000)] * 100
        assert "received 5,000 bytes, the server announced 4,000" in str(get.fails())
        assert not get.part.exists()

    def test_wrong_file_makes_the_next_url_be_tried(self, get: Getting, server: Server) -> None:
        server.files["/a"] = b"another"
        get("/a", "/mirror")
        assert [asked.path for asked in server.asked] == ["/a", "/mirror"]

    def test_wrong_file_at_every_url_is_a_checksum_error(self, get: Getting, server: Server) -> None:
        server.files["/a"] = server.files["/mirror"] = b"another"
        error = get.fails("/a", "/mirror", error=ChecksumError)
        assert str(error).count(hashlib.md5(b"another").hexdigest()) == 2
        assert str(error).count(MD5) == 2
        assert not get.part.exists()
        assert len(server.asked) == 2
        get.fails("/a", "/nothing")  # a missing file is not a checksum error

    def test_cut_file_without_announced_size_is_a_checksum_error(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.unannounced(1000)]
        assert "1,000 bytes" in str(get.fails(error=ChecksumError))

    def test_web_page_is_refused_and_keeps_the_part(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.drop(50_000), serving.page]
        assert "a web page, not the file" in str(get.fails())
        assert get.part.read_bytes() == CONTENT[:50_000]
        get()
        html = serving.status(200, Content_Type="text/html; charset=utf-8")
        get.file.unlink()
        server.ways["/a"] = [html]
        assert "a web page, not the file" in str(get.fails())


class TestFailures:
    @pytest.mark.parametrize("code", [401, 403, 404, 410, 451, 202, 204])
    def test_permanent_refusal_is_not_retried(self, get: Getting, server: Server, code: int) -> None:
        server.ways["/a"] = [serving.status(code)] * 9
        get("/a", "/mirror")
        assert [asked.path for asked in server.asked] == ["/a", "/mirror"]
        assert get.pauses == []

    @pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
    def test_temporary_refusal_is_retried(self, get: Getting, server: Server, code: int) -> None:
        server.ways["/a"] = [serving.status(code)] * (ATTEMPTS - 1)
        get()
        server.ways["/a"] = [serving.status(code)] * ATTEMPTS
        get.file.unlink()
        assert f"HTTP {code}" in str(get.fails())

    def test_redirects_in_circles_or_to_other_schemes_are_refused(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.redirect("/a")] * 100
        assert "redirected too often" in str(get.fails())
        assert len(server.asked) < 15
        for target in ("file:///etc/passwd", "ftp://127.0.0.1/x"):
            server.ways["/a"] = [serving.redirect(target)]
            get.fails()
        for url in ("file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x://"):
            assert "unknown url type" in str(get.fails(url))
        get.fails("http://[x/")

    @pytest.mark.long
    def test_server_that_stops_sending_times_out_and_is_resumed(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.hang(50_000)]
        get(timeout=0.2)
        assert server.sent("/a") == len(CONTENT)
        server.ways["/a"] = [lambda handler, content: handler.served.resume.wait(20) and None] * ATTEMPTS
        get.file.unlink()
        assert "received nothing for 0.2 s" in str(get.fails(timeout=0.2))

    def test_timeout_after_the_last_byte_is_not_a_failure(self, get: Getting, server: Server) -> None:
        server.ways["/a"] = [serving.hang(len(CONTENT))]
        get(timeout=0.3)
        assert len(server.asked) == 1

    def test_refused_connection_error_asks_to_check_the_connection(self, get: Getting) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}/x"
        error = get.fails(url)
        assert "refused" in str(error)
        assert "check the connection" in error.hint
        assert get.pauses == [1.0]

    def test_unresolvable_name_is_given_up_soon(self, get: Getting, monkeypatch: pytest.MonkeyPatch) -> None:
        names = []

        def nothing(host: str, *_: object, **__: object) -> None:
            names.append(host)
            raise socket.gaierror(-3, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", nothing)
        for name in ("http_proxy", "https_proxy"):
            monkeypatch.delenv(name)
        urls = ("http://one.example/x", "https://two.example/x")
        error = get.fails(*urls)
        assert "the name one.example" in str(error)
        assert "check the connection" in error.hint
        assert names == ["one.example", "one.example", "two.example", "two.example"]
        assert sum(get.pauses) <= 2

    def test_unresolvable_name_that_answered_before_is_retried(
        self, get: Getting, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there, failures = socket.getaddrinfo, [False, True, True, True, False]

        def now_and_then(*what: Any, **options: Any) -> Any:
            if failures.pop(0):
                raise socket.gaierror(-3, "Temporary failure in name resolution")
            return there(*what, **options)

        monkeypatch.setattr(socket, "getaddrinfo", now_and_then)
        server.ways["/a"] = [serving.drop(1000)]
        get()

    def test_file_without_url_is_an_error(self, get: Getting) -> None:
        with pytest.raises(RawDataError, match="no URL is known"):
            download([RemoteFile("x", (), MD5)], get.folder)

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
    def test_full_disk_is_a_machine_error(self, get: Getting, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = Path.open

        def full(path: Path, mode: str = "r", **options: Any) -> Any:
            return opened(Path("/dev/full") if path == get.part and mode == "ab" else path, mode, **options)

        monkeypatch.setattr(Path, "open", full)
        with pytest.raises(MachineError, match="no space left"):
            get()
        assert not get.file.exists()


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.long
def test_random_faults_give_the_right_file_or_none(seed: int, get: Getting, server: Server) -> None:
    rng = random.Random(seed)
    for path in ("/a", "/mirror"):
        faults = [
            serving.drop(rng.randrange(300_000)),
            serving.reset(rng.randrange(300_000)),
            serving.announce(rng.randrange(-1000, 1000)),
            serving.other(bytes(rng.randrange(1, 300_000))),
            serving.other_part,
            serving.unannounced(rng.randrange(300_000)),
            serving.whole,
            serving.page,
            serving.status(rng.choice((202, 403, 416, 500, 503))),
        ]
        server.ways[path] = rng.choices(faults, k=8)
    for _ in range(20):
        try:
            get("/a", "/mirror")
        except RawDataError:
            assert not get.file.exists()
        else:
            return
    pytest.fail("the server has no more faults, but there is no file")
