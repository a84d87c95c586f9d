"""From masks to a network that is really smaller: read, shrunk, run and kept in a file."""
