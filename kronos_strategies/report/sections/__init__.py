"""Sections of the page, one module each: an evaluation in, a `Section` out."""
