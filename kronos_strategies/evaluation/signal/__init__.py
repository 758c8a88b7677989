"""How a score ranks the returns that follow it. Torch-free, engine-free."""
