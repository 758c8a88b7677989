"""Inference: windows -> tokens -> sampled tokens -> bars, near the limit of the hardware.

From the outside in: `pipeline` takes chunks of windows through tokenizer and model, `generate` samples tokens
without reference to prices, `kv_cache` keeps keys and values, `fused` and `packed_linear` are the networks
rewritten for speed, `cuda_graph` launches many kernels at once, `settings` checks devices, weights and options.
"""
