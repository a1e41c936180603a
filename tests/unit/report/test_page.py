"""The page and its server: everything inside, nothing from a file taken for markup, nothing served but the page."""

import base64
import hashlib
import html
import http.client
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plifctl.errors import UsageError
from plifctl.report import build_table
from plifctl.report.page import RunFacts, page_data, page_of, serve, write_page
from plifctl.report.page.build import embedded
from plifctl.runs import Curve, SpikeRecording

HOSTILE = "</script><img src=x onerror=alert(1)>\u2028\"'&<!--"


def curve(name: str = "run", **changes: Any) -> Curve:
    values: dict[str, Any] = {
        "name": name,
        "origin": "trained",
        "experiment": "demo",
        "recipe": "paper",
        "protocol": "A",
        "T": 4,
        "seed": 1,
        "epochs": (1, 2, 4),
        "series": {"test_accuracy": (0.123456789, None, 0.5), "loss": (1.0, float("inf"), 0.25)},
        "layers": ("sn0",),
        "tau": ((2.0, 2.1, 2.2),),
    }
    return Curve(**values | changes)


def recording() -> SpikeRecording:
    generator = np.random.default_rng(0)
    spikes = {"sn0": generator.random((12, 3, 20, 4, 5)) < 0.3, "sn1": generator.random((12, 3, 6)) < 0.5}
    frames = generator.integers(0, 7, (12, 3, 2, 4, 5)).astype(np.uint8)
    return SpikeRecording(
        tuple(f"s{n}" for n in range(12)), np.arange(12) % 2, ("a", "b"), frames, generator.random((12, 3, 2)), spikes
    )


def data_of(page: str) -> Any:
    return json.loads(page.split('id="data">')[1].split("</script>")[0])


def test_data_is_what_was_given() -> None:
    found = page_data([], [RunFacts(curve(), "run", "running", "demo", {"T": (4, "a.yaml:1")}, {"torch": "2"})], "1")
    (run,) = found["runs"]
    assert run["series"] == {"test_accuracy": [0.12346, None, 0.5], "loss": [1.0, None, 0.25]}
    assert (run["epochs"], run["tau"], run["settings"]) == ([1, 2, 4], [[2.0, 2.1, 2.2]], [["T", "4", "a.yaml:1"]])
    assert page_data([], [RunFacts(None, "broken", "damaged: x")], "1")["runs"][0]["epochs"] == []


def test_recorded_spikes_are_packed_and_bounded() -> None:
    given = recording()
    (found,) = page_data([], [RunFacts(None, "run", "finished", spikes=given)], "1")["samples"]
    assert (len(found["ids"]), found["left_out"], found["T"]) == (10, 2, 3)
    maps, features = found["layers"]
    assert (len(maps["channels"]), maps["of"]) == (16, 20)
    bits = np.unpackbits(np.frombuffer(base64.b64decode(maps["bits"]), np.uint8), count=int(np.prod(maps["shape"])))
    np.testing.assert_array_equal(bits.reshape(maps["shape"]), given.spikes["sn0"][:10][:, :, maps["channels"]])
    assert features["shape"][2:] == [1, 2, 3]
    pixels = np.frombuffer(base64.b64decode(found["input"]["bytes"]), np.uint8).reshape(found["input"]["shape"])
    grey = given.inputs[:10].sum(2)
    np.testing.assert_allclose(pixels, np.round(grey * (255 / grey.max())), atol=0)


def test_nothing_ends_the_data_early() -> None:
    assert json.loads(embedded({"x": HOSTILE})) == {"x": HOSTILE}
    assert not set("<>&\u2028\u2029") & set(embedded({"x": HOSTILE}))
    facts = RunFacts(curve(HOSTILE), HOSTILE, HOSTILE, HOSTILE, {HOSTILE: (HOSTILE, HOSTILE)}, {HOSTILE: HOSTILE})
    page = page_of(page_data([], [facts], HOSTILE))
    assert "<img" not in page
    assert page.lower().count("</script>") == 2
    assert data_of(page)["runs"][0]["name"] == HOSTILE


def test_the_page_needs_nothing_and_allows_nothing() -> None:
    page = page_of(page_data([], [], "1"))
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])  # type: ignore[index]
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    for element in ("style", "script"):
        text = re.search(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)[1]  # type: ignore[index]
        assert f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert not re.search(r'(src|href)="(?!#|data:)', page)
    assert "innerHTML" not in page
    assert "connect-src 'self'" in html.unescape(page_of({"runs": [], "samples": [], "tables": []}, live_ms=5))


def test_it_replaces_a_page_of_ours_and_no_other(tmp_path: Path) -> None:
    data = page_data([], [], "1")
    path = write_page(tmp_path / "report", data)
    assert write_page(tmp_path / "report", data).read_text() == path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    path.write_text("<html>my own page</html>")
    with pytest.raises(UsageError, match="not a page of plifctl"):
        write_page(tmp_path / "report", data)
    assert path.read_text() == "<html>my own page</html>"
    with pytest.raises(UsageError, match="a file; the page needs a folder"):
        write_page(path, data)


def test_tables_as_they_are_reported() -> None:
    from plifctl.config.registry import load_registry

    table = build_table("4", [], load_registry())
    (found,) = page_data([table], [], "1")["tables"]
    assert found["rows"][0][1] == [("94.38", "")]
    assert found["numeric"][:2] == [False, True]


class Served:
    """The page on a free port, with data that a test may change."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = page_data([], [RunFacts(curve(), "run", "running")], "1")
        self.server = serve(lambda: self.data, 0)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.putrequest(method, path, skip_host=True)
        for name, value in {"Host": f"127.0.0.1:{self.port}", **headers}.items():
            connection.putheader(name, value)
        connection.endheaders()
        reply = connection.getresponse()
        found = reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
        connection.close()
        return found


@pytest.fixture
def served() -> Iterator[Served]:
    found = Served()
    found.thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    found.thread.join()


def test_it_serves_the_page_and_its_data(served: Served) -> None:
    status, headers, body = served.ask("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'data-live="2000"' in body
    status, headers, body = served.ask("/data.json")
    assert status == 200
    assert json.loads(body)["runs"][0]["name"] == "run"
    assert served.ask("/data.json", **{"If-None-Match": headers["etag"]})[0] == 304
    status, headers, body = served.ask("/data.json", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize(
    "path",
    [
        "/index.html",
        "/../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/data.json/..",
        "/.git/config",
        "*",
    ],
)
def test_nothing_else_is_served(served: Served, path: str) -> None:
    status, _, body = served.ask(path)
    assert status == 404
    assert b"root:" not in body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil.example:{}"])
def test_other_hosts_are_refused(served: Served, host: str) -> None:
    assert served.ask("/data.json", Host=host.format(served.port))[0] == 403


def test_this_machine_by_its_name(served: Served) -> None:
    assert served.ask("/", Host=f"localhost:{served.port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_it_is_only_read(served: Served, method: str) -> None:
    assert served.ask("/", method)[0] == 501


def test_it_is_bound_to_this_machine(served: Served) -> None:
    assert served.server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken(served: Served) -> None:
    with pytest.raises(UsageError, match=f"port {served.port}"):
        serve(dict, served.port)
