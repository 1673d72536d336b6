"""The race: choices, buttons, and the live view."""
