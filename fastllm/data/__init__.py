"""Articles in, token arrays out: what the training and the evaluation read."""
