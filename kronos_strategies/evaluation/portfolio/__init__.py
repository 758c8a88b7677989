"""What a book earned, after costs and beside its benchmarks. Torch-free, engine-free."""
