"""One object, three outputs: report.html, metrics.json and CSVs. Torch-free, engine-free."""
