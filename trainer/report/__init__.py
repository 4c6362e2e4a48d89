"""A run as one HTML file for people: what it did, and how well."""

from __future__ import annotations

from trainer.report.page import report_page
from trainer.report.run_data import RunData, read_run

__all__ = ["RunData", "read_run", "report_page"]
