"""A drafter that learns in view, then races."""
