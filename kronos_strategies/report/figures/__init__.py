"""One plotly figure a function: frames of the studies in, go.Figure out. Only this package imports plotly."""
