"""The report as a web page: one file that needs no network, or served live while runs are in progress."""

from plifctl.report.page.build import write_page
from plifctl.report.page.data import PageFigure, PageRun, RunFacts, build_page_data, page_run
from plifctl.report.page.server import create_server

__all__ = [
    "PageFigure",
    "PageRun",
    "RunFacts",
    "build_page_data",
    "create_server",
    "page_run",
    "write_page",
]
