"""Figures of the report, drawn with plotly."""
