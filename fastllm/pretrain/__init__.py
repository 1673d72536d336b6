"""Texts to learn to write before the first reference summary: compressive summaries."""
