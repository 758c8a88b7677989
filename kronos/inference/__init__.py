"""The engine: windows -> tokens -> sampled tokens -> bars, near the limit of the machine.

From outside in: `pipeline` takes a chunk of windows through tokenizer and model, `generate` samples tokens and
knows no prices, `past` and `cache` hold what was read, `fused`, `product` and `tiles` are the networks as they run
fastest, `replay` and `steps` hand a CUDA device many kernels at once.
"""
