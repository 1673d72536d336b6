"""What only maintainers run, from a clone: `python -m tools.NAME`."""
