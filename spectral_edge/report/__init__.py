"""What people see of an audit: charts of one run, and the page over all runs."""

from spectral_edge.report.charts import png_of, run_chart_png, run_chart_svg
from spectral_edge.report.page import render_page, run_chart_html, write_report
from spectral_edge.report.verdict import verdict

__all__ = [
    "png_of",
    "render_page",
    "run_chart_html",
    "run_chart_png",
    "run_chart_svg",
    "verdict",
    "write_report",
]
