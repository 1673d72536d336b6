"""The lanes over several articles."""
