"""Training in two stages: the tokenizer learns to rebuild bars, then the model learns its tokens' order."""
