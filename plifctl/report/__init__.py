"""The paper's tables from runs: published numbers, ours, and how ours came about."""

from plifctl.report.render import FORMATS, Format, render
from plifctl.report.tables import TABLES, Table, build_table

__all__ = ["FORMATS", "TABLES", "Format", "Table", "build_table", "render"]
