"""Pure functions from signals and returns to figures. Torch-free, engine-free."""
