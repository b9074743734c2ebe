"""What people see of an audit: charts of one run, and the page over all runs."""

from spectral_edge.report.charts import run_chart_png
from spectral_edge.report.page import render_page, run_chart_html, write_report
from spectral_edge.report.verdict import verdict

__all__ = ["render_page", "run_chart_html", "run_chart_png", "verdict", "write_report"]
