"""Data sets: where their images are, how they are split, and the prepared files."""
