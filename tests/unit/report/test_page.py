"""The report page and its server: one file, no text taken for markup, nothing served but the page."""

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
from plifctl.report import build_table, page
from plifctl.report.page import RunFacts, build_page_data, create_server, render_page, write_page
from plifctl.report.page.build import embed_json
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


def test_page_data_of_run_has_its_numbers_without_nan() -> None:
    found = build_page_data(
        [], [RunFacts(curve(), "run", "running", "demo", {"T": (4, "a.yaml:1")}, {"torch": "2"})], "1"
    )
    (run,) = found["runs"]
    assert run["series"] == {"test_accuracy": [0.12346, None, 0.5], "loss": [1.0, None, 0.25]}
    assert (run["epochs"], run["tau"], run["settings"]) == ([1, 2, 4], [[2.0, 2.1, 2.2]], [["T", "4", "a.yaml:1"]])
    assert build_page_data([], [RunFacts(None, "broken", "damaged: x")], "1")["runs"][0]["epochs"] == []


def test_page_data_of_spikes_is_packed_and_bounded() -> None:
    given = recording()
    given.inputs[3] = 0
    (found,) = build_page_data([], [RunFacts(None, "run", "finished", spikes=given)], "1")["samples"]
    assert found["empty"] == [False, False, False, True, False, False, False, False, False, False]
    assert (len(found["ids"]), found["left_out"], found["T"]) == (10, 2, 3)
    maps, features = found["layers"]
    assert (len(maps["channels"]), maps["of"]) == (16, 20)
    bits = np.unpackbits(np.frombuffer(base64.b64decode(maps["bits"]), np.uint8), count=int(np.prod(maps["shape"])))
    np.testing.assert_array_equal(bits.reshape(maps["shape"]), given.spikes["sn0"][:10][:, :, maps["channels"]])
    assert features["shape"][2:] == [1, 2, 3]
    pixels = np.frombuffer(base64.b64decode(found["input"]["bytes"]), np.uint8).reshape(found["input"]["shape"])
    grey = given.inputs[:10].sum(2)
    np.testing.assert_allclose(pixels, np.round(grey * (255 / grey.max())), atol=0)


def test_page_with_hostile_text_keeps_it_inside_the_data() -> None:
    assert json.loads(embed_json({"x": HOSTILE})) == {"x": HOSTILE}
    assert not set("<>&\u2028\u2029") & set(embed_json({"x": HOSTILE}))
    facts = RunFacts(curve(HOSTILE), HOSTILE, HOSTILE, HOSTILE, {HOSTILE: (HOSTILE, HOSTILE)}, {HOSTILE: HOSTILE})
    text = render_page(build_page_data([], [facts], HOSTILE))
    assert "<img" not in text
    assert text.lower().count("</script>") == 2
    assert data_of(text)["runs"][0]["name"] == HOSTILE


def test_page_allows_only_its_own_style_and_script() -> None:
    text = render_page(build_page_data([], [], "1"))
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])  # type: ignore[index]
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    for element in ("style", "script"):
        content = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)[1]  # type: ignore[index]
        assert f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    assert "innerHTML" not in text
    assert "connect-src 'self'" in html.unescape(render_page({"runs": [], "samples": [], "tables": []}, live_ms=5))


def test_page_embeds_vendored_files_with_licence() -> None:
    vendor = Path(page.__file__).parent / "vendor"
    html_text = render_page(build_page_data([], [], "1"))
    readme = (vendor / "README.md").read_text(encoding="utf-8")
    for name in ("uPlot.iife.min.js", "uPlot.min.css"):
        content = (vendor / name).read_bytes()
        assert content.decode() in html_text
        assert hashlib.sha256(content).hexdigest() in readme, "the file differs from the version that README.md names"
    assert "Permission is hereby granted, free of charge" in html_text


def test_write_page_replaces_pages_of_plifctl_only(tmp_path: Path) -> None:
    data = build_page_data([], [], "1")
    path = write_page(tmp_path / "report", data)
    assert write_page(tmp_path / "report", data).read_text() == path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    path.write_text("<html>my own page</html>")
    with pytest.raises(UsageError, match="not a page of plifctl"):
        write_page(tmp_path / "report", data)
    assert path.read_text() == "<html>my own page</html>"
    with pytest.raises(UsageError, match="a file; the page needs a folder"):
        write_page(path, data)


def test_page_data_of_table_has_its_cells() -> None:
    from plifctl.config.lookup import load_registry

    table = build_table("4", [], load_registry())
    (found,) = build_page_data([table], [], "1")["tables"]
    assert found["rows"][0][1] == [("94.38", "")]
    assert found["numeric"][:2] == [False, True]


class PageServer:
    """A server of the page on a free port."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = build_page_data([], [RunFacts(curve(), "run", "running")], "1")
        self.server = create_server(lambda: self.data, 0)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))

    def request(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
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
def server() -> Iterator[PageServer]:
    found = PageServer()
    found.thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    found.thread.join()


def test_server_serves_page_and_data(server: PageServer) -> None:
    status, headers, body = server.request("/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b'data-live="2000"' in body
    status, headers, body = server.request("/data.json")
    assert status == 200
    assert json.loads(body)["runs"][0]["name"] == "run"
    assert server.request("/data.json", **{"If-None-Match": headers["etag"]})[0] == 304
    status, headers, body = server.request("/data.json", "HEAD")
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
def test_server_at_other_path_answers_404(server: PageServer, path: str) -> None:
    status, _, body = server.request(path)
    assert status == 404
    assert b"root:" not in body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "", "localhost.evil.example:{}"])
def test_server_under_other_host_name_answers_403(server: PageServer, host: str) -> None:
    assert server.request("/data.json", Host=host.format(server.port))[0] == 403


def test_server_under_localhost_answers_200(server: PageServer) -> None:
    assert server.request("/", Host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_server_with_other_method_answers_501(server: PageServer, method: str) -> None:
    assert server.request("/", method)[0] == 501


def test_server_is_bound_to_loopback_only(server: PageServer) -> None:
    assert server.server.server_address[0] == "127.0.0.1"


def test_server_on_taken_port_raises_usage_error(server: PageServer) -> None:
    with pytest.raises(UsageError, match=f"port {server.port}"):
        create_server(dict, server.port)
