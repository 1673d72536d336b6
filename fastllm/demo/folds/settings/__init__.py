"""The settings of a race."""
