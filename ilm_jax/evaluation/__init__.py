"""Metrics, intervals, comparison, report and audit: pure functions of arrays and files."""
