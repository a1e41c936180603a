"""The paper's tables and figures from runs, and the report as a web page."""

from plifctl.report.table import Table
from plifctl.report.tables import TableOptions, fill_table

__all__ = ["Table", "TableOptions", "fill_table"]
