"""A target from nothing: texts to write, vocabulary, curriculum."""
