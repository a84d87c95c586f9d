"""From masks to a network that is really smaller: read, shrunk, run by whatever is fastest, kept in a file."""
