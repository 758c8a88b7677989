"""Whether outcomes fall where the sampled paths say. Torch-free, engine-free."""
