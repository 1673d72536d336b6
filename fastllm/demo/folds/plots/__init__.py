"""The plots of a race that has ended."""
