"""The paper's tables from runs: published numbers, ours, and how ours came about."""

from plifctl.report.render import FORMATS, Format, render
from plifctl.report.table import Table
from plifctl.report.tables import TABLES, Source, build_table

__all__ = ["FORMATS", "TABLES", "Format", "Source", "Table", "build_table", "render"]
