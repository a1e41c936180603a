"""The report page and its server: one file, no text taken for markup, nothing served but the page."""

import base64
import hashlib
import html
import http.client
import json
import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from plifctl import files
from plifctl.config.choices import PROTOCOL_ACCURACY
from plifctl.errors import UsageError
from plifctl.report import fill_table, page
from plifctl.report.page import PageFigure, RunFacts, build_page_data, create_server, page_run, write_page
from plifctl.report.page import server as server_module
from plifctl.report.page.build import embed_json, render_page
from plifctl.report.page.data import MAX_DISTRIBUTIONS, pack_accuracies, pack_series
from plifctl.runs import Curve, RunAccuracy, SpikeRecording

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


def data(*runs: RunFacts) -> dict[str, Any]:
    return build_page_data([], [page_run(run) for run in runs], "1")


def unpack(packed: Any) -> np.ndarray:
    """The values of a packed series, as series.js reads them."""
    low, high, text = packed
    numbers = np.frombuffer(base64.b64decode(text), "<u2").astype(float)
    return np.where(numbers == 65535, np.nan, low + numbers * (high - low) / 65534)


def test_page_data_of_run_has_its_numbers_without_nan() -> None:
    found = data(RunFacts(curve(), "run", "running", settings={"T": (4, "a.yaml:1")}, environment={"torch": "2"}))
    (run,) = found["runs"]
    part = found["parts"][run["curve"]]
    assert part["epochs"] == [1, 2, 4]
    np.testing.assert_allclose(unpack(part["series"]["test_accuracy"]), [0.123456789, np.nan, 0.5], atol=1e-5)
    np.testing.assert_allclose(unpack(part["series"]["loss"]), [1.0, np.nan, 0.25], atol=1e-5)
    np.testing.assert_allclose(unpack(part["tau"]["sn0"]), [2.0, 2.1, 2.2], atol=1e-5)
    facts = [found["facts"][index] for index in (*run["settings"], *run["environment"])]
    assert facts == [["T", "4", "a.yaml:1"], ["torch", "2"]]
    (broken,) = data(RunFacts(None, "broken", "damaged: x"))["runs"]
    assert (broken["epochs"], broken["curve"], broken["status"]) == (0, None, "damaged: x")


@pytest.mark.parametrize(
    ("series", "last"),
    [
        ({"test_accuracy": (0.5, 0.75, 0.25)}, (0.25, 4, "test")),
        ({"validation_accuracy": (0.5, 0.75, None)}, (0.75, 2, "validation")),
        ({"test_accuracy": (0.5, 0.75, 0.25), "validation_accuracy": (0.3, 0.1, 0.2)}, (0.25, 4, "test")),
        ({"test_accuracy": (None, None, None), "validation_accuracy": (0.3, 0.1, 0.2)}, (0.2, 4, "validation")),
    ],
)
def test_page_data_of_a_run_has_its_accuracy_and_that_of_its_last_epoch(series: Any, last: Any) -> None:
    facts = RunFacts(curve(series=series), "run", "running", accuracy=RunAccuracy(0.3, 1, "validation"))
    (run,) = data(facts)["runs"]
    assert run["result"] == {"value": 0.3, "epoch": 1, "of": "validation"}
    assert tuple(run["last"].values()) == last


def test_page_says_what_the_accuracy_of_each_protocol_is() -> None:
    text = render_page(data())
    assert all(f"Protocol {name}: {accuracy.short}." in text for name, accuracy in PROTOCOL_ACCURACY.items())


def test_page_data_of_runs_that_differ_in_the_seed_have_one_setting() -> None:
    def setting(lr: float, seed: int, **changes: Any) -> str:
        settings = {"train.lr": (lr, ""), "train.seed": (seed, "")}
        facts = RunFacts(curve(seed=seed, **changes), f"run-{seed}", "finished", settings=settings)
        return str(data(facts)["runs"][0]["setting"])

    first = setting(0.1, 1)
    assert first == setting(0.1, 2)
    others = {setting(0.2, 1), setting(0.1, 1, protocol="B"), setting(0.1, 1, origin="added"), first}
    assert len(others) == 4


def test_pack_series_is_exact_to_its_step_and_short_where_nothing_changes() -> None:
    values = np.random.default_rng(0).random(1000)
    assert np.abs(unpack(pack_series(values.tolist())) - values).max() <= 1 / 131068
    assert len(json.dumps(pack_series(values.tolist()))) < 2.8 * 1000
    assert (pack_series([2.0] * 1000), pack_series([None, float("nan")]), pack_series([])) == (2.0, None, None)
    np.testing.assert_array_equal(unpack(pack_series([2.0, None])), [2.0, np.nan])


@pytest.mark.parametrize("samples", [3, 13, 288, 9984, 10_000])
def test_pack_accuracies_print_as_the_exact_ones(samples: int) -> None:
    values = [correct / samples for correct in range(samples + 1)]
    printed = [f"{100 * value:.2f}" for value in unpack(pack_accuracies(values))]
    assert printed == [f"{100 * value:.2f}" for value in values]


def test_page_data_of_distributions_is_bounded() -> None:
    rows = tuple({"quantiles": [float(epoch), *range(1, 9)]} for epoch in range(1, 301))
    given = curve(
        epochs=tuple(range(1, 301)), series={}, tau=(tuple([2.0] * 300),), w_over_tau={"fc0": (None, *rows[1:])}
    )
    (part,) = data(RunFacts(given, "run", "running"))["parts"].values()
    found = part["distributions"]["fc0"]
    assert (len(found["epochs"]), found["epochs"][0], found["epochs"][-1]) == (MAX_DISTRIBUTIONS, 2, 300)
    np.testing.assert_allclose(unpack(found["quantiles"][0]), found["epochs"], atol=0.01)
    assert found["quantiles"][1:] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]


def test_page_data_of_spikes_is_packed_and_bounded() -> None:
    given = recording()
    given.inputs[3] = 0
    document = data(RunFacts(None, "run", "finished", spikes=given))
    found = document["parts"][document["runs"][0]["spikes"]]
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
    named = curve(HOSTILE, layers=(HOSTILE,), series={HOSTILE: (1.0, 2.0, 3.0)}, overrides=(HOSTILE,))
    facts = RunFacts(
        named,
        HOSTILE,
        HOSTILE,
        settings={HOSTILE: (HOSTILE, HOSTILE)},
        environment={HOSTILE: HOSTILE},
    )
    figure = PageFigure(HOSTILE, HOSTILE, HOSTILE.encode())
    text = render_page(build_page_data([], [page_run(facts)], HOSTILE, [figure]))
    assert "<img" not in text
    assert text.lower().count("</script>") == 3, "data, curve and script"
    assert data_of(text)["runs"][0]["name"] == HOSTILE


def test_page_allows_only_its_own_style_and_script() -> None:
    text = render_page(data())
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])  # type: ignore[index]
    assert "default-src 'none'" in policy
    assert "connect-src 'none'" in policy
    for element in ("style", "script"):
        content = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)[1]  # type: ignore[index]
        assert f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
    assert not re.search(r'(src|href)="(?!#|data:)', text)
    assert "innerHTML" not in text
    assert "connect-src 'self'" in html.unescape(render_page(data(), live_ms=5))


def test_page_embeds_vendored_files_with_licence() -> None:
    vendor = Path(page.__file__).parent / "vendor"
    html_text = render_page(data())
    readme = (vendor / "README.md").read_text(encoding="utf-8")
    for name in ("uPlot.iife.min.js", "uPlot.min.css"):
        content = (vendor / name).read_bytes()
        assert content.decode() in html_text
        assert hashlib.sha256(content).hexdigest() in readme, "the file differs from the version that README.md names"
    assert "Permission is hereby granted, free of charge" in html_text


def test_write_page_replaces_pages_of_plifctl_only(tmp_path: Path) -> None:
    path = write_page(tmp_path / "report", data())
    assert write_page(tmp_path / "report", data()).read_text() == path.read_text()
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    path.write_text("<html>my own page</html>")
    with pytest.raises(UsageError, match="not a page of plifctl"):
        write_page(tmp_path / "report", data())
    assert path.read_text() == "<html>my own page</html>"
    with pytest.raises(UsageError, match="a file; the page needs a folder"):
        write_page(path, data())
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match="not a page of plifctl"):
        write_page(tmp_path / "report", data())


def test_write_page_reads_the_beginning_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, sizes, original = write_page(tmp_path, data()), [], files.read_regular
    path.write_text(path.read_text() + " " * 100_000)
    monkeypatch.setattr(files, "read_regular", lambda *args: sizes.append(len(original(*args))) or original(*args))
    write_page(tmp_path, data())
    assert sizes
    assert max(sizes) <= 8000


def test_page_data_of_table_has_its_cells() -> None:
    from plifctl.config.lookup import load_registry

    table = fill_table("4", [], load_registry())
    (found,) = build_page_data([table], [], "1")["tables"]
    assert found["rows"][0][1] == [("94.38", "")]
    assert found["numeric"][:2] == [False, True]


class PageServer:
    """A server of the page on a free port."""

    def __init__(self) -> None:
        self.data = data(RunFacts(curve(), "run", "running"))
        self.read: Callable[[], dict[str, Any]] = lambda: self.data
        self.server = create_server(lambda: self.read(), 0)
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
    (run,) = json.loads(body)["runs"]
    assert (run["name"], json.loads(body)["parts"]) == ("run", {}), "curves are fetched one by one"
    assert server.request("/data.json", **{"If-None-Match": headers["etag"]})[0] == 304
    status, _, body = server.request(f"/parts/{run['curve']}")
    assert (status, json.loads(body)) == (200, server.data["parts"][run["curve"]])
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
        "/parts/",
        "/parts/0000000000000000",
        "/parts/../data.json",
        "*",
    ],
)
def test_server_at_other_path_answers_404(server: PageServer, path: str) -> None:
    status, _, body = server.request(path)
    assert status == 404
    assert b"root:" not in body


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{}", "", "localhost.evil.example:{}"])
def test_server_under_other_host_name_answers_403(server: PageServer, host: str) -> None:
    assert server.request("/data.json", Host=host.format(server.port))[0] == 403


@pytest.mark.parametrize("host", ["localhost:{}", "127.0.0.1:9000", "127.0.0.1"])
def test_server_answers_this_machine_also_through_a_tunnel_with_another_port(server: PageServer, host: str) -> None:
    assert server.request("/", Host=host.format(server.port))[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_server_with_other_method_answers_501(server: PageServer, method: str) -> None:
    assert server.request("/", method)[0] == 501


def test_server_is_bound_to_loopback_only(server: PageServer) -> None:
    assert server.server.server_address[0] == "127.0.0.1"


def test_server_sends_a_large_reply_in_pieces(server: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, original = [], socketserver._SocketWriter.write  # type: ignore[attr-defined]

    def write(self: Any, content: bytes) -> int:
        sizes.append(len(content))
        return int(original(self, content))

    monkeypatch.setattr(socketserver._SocketWriter, "write", write)  # type: ignore[attr-defined]
    server.data["version"] = "x" * 300_000
    status, headers, body = server.request("/data.json")
    assert (status, int(headers["content-length"])) == (200, len(body))
    assert json.loads(body)["version"] == server.data["version"]
    assert max(sizes) <= 65536, "the timeout of a connection is for each piece"


def test_server_and_page_with_a_name_that_is_not_utf_8_show_it(server: PageServer, tmp_path: Path) -> None:
    server.data = data(RunFacts(curve("caf\udce9"), "caf\udce9", "running"))
    for path in ("/", "/data.json"):
        status, _, body = server.request(path)
        assert status == 200
        assert rb"caf\udce9" in body
    assert json.loads(body)["runs"][0]["name"] == "caf\udce9"
    assert data_of(write_page(tmp_path, server.data).read_text(encoding="utf-8"))["runs"][0]["name"] == "caf\udce9"


@pytest.mark.parametrize("error", [UsageError("a file of \udce9 is damaged"), OSError(5, "Input/output error")])
def test_server_that_cannot_read_answers_500_with_the_error(
    server: PageServer, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Any:
        raise error

    server.read = fail
    status, _, body = server.request("/data.json")
    assert status == 500
    assert body.decode().endswith(("is damaged\n", "Input/output error\n"))
    server.read = lambda: server.data
    assert server.request("/data.json")[0] == 200
    assert capsys.readouterr().err == ""


def test_server_on_the_last_port_hints_at_one_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(server_module, "ThreadingHTTPServer", refuse)
    for port, other in ((65535, 65534), (8765, 8766)):
        with pytest.raises(UsageError, match=f"port {port}: Address") as error:
            create_server(dict, port)
        assert error.value.hint == f"choose another: --port {other}"


def test_server_on_taken_port_raises_usage_error(server: PageServer) -> None:
    with pytest.raises(UsageError, match=f"port {server.port}"):
        create_server(dict, server.port)
