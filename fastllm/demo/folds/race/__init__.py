"""The race: the live view, and the events that start it."""
