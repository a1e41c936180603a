"""The report as a web page: one file, without network, or served live while runs go on."""

from plifctl.report.page.build import page_of, write_page
from plifctl.report.page.data import RunFacts, page_data
from plifctl.report.page.server import serve

__all__ = ["RunFacts", "page_data", "page_of", "serve", "write_page"]
