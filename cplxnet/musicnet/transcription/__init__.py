"""Music written down: recordings in, piano rolls and notes out, and how good they are."""
