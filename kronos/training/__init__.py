"""Training in two stages: the tokenizer learns to reconstruct bars, then the predictor learns the next token."""
