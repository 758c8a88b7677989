"""The report of a run: one object, written as report.html, metrics.json and CSV files."""
