"""What a visitor takes home: a replay, and the code that runs the race again."""
