"""Metrics, intervals, tables compared, report and audit: pure functions of arrays and files."""
