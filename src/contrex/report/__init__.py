"""Reports about runs: one HTML file, or tables in the terminal. Only records are read, never models."""

from contrex.report.compare import comparison_csv, comparison_tables, record_folder
from contrex.report.html import render_report, write_report
from contrex.report.terminal import summary_table

__all__ = ["comparison_csv", "comparison_tables", "record_folder", "render_report", "summary_table", "write_report"]
