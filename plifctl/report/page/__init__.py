"""The report as a web page: one file that needs no network, or served live while runs are in progress."""

from plifctl.report.page.build import render_page, write_page
from plifctl.report.page.data import RunFacts, build_page_data
from plifctl.report.page.server import create_server

__all__ = ["RunFacts", "build_page_data", "create_server", "render_page", "write_page"]
