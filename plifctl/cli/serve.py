"""plifctl serve: the report's page, live."""

from __future__ import annotations

from typing import Annotated

import typer

from plifctl.cli import console, options


def serve(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 picks a free one.")] = 8765,
    runs_dir: options.RunsDirOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Serve the report's page live.

    The page follows runs while they are trained; Ctrl-C stops the server. Only browsers on this machine can open it. If
    this machine is a remote one, such as a node of a cluster, type ssh -L 8765:127.0.0.1:8765 MACHINE on your own
    computer, and open the page there.

    Example: plifctl serve
    """
    from plifctl.pipeline.page import serve_report_page

    folder = options.existing_runs_dir(runs_dir)
    server = serve_report_page(folder, port)
    url = f"http://127.0.0.1:{server.server_port}/"
    if as_json:
        console.emit_json({"url": url, "runs_dir": str(folder)})
    else:
        console.emit(f"{url} shows {folder}; Ctrl-C stops it")
    with server:
        server.serve_forever()
