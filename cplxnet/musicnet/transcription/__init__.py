"""Music written down: windows to probabilities, audio in, piano rolls and notes out, and how good they are."""
