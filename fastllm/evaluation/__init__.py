"""Drafters on a test set: measured, reported, drawn."""
