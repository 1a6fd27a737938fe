"""Reports about runs: one HTML file, or a table in the terminal. Reads records, never models."""

from contrex.report.html import render_report, write_report
from contrex.report.terminal import summary_table

__all__ = ["render_report", "summary_table", "write_report"]
