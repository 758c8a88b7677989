"""Bars from files as people have them: CSV or parquet, of vendors or one's own, tidy or one file per symbol."""
