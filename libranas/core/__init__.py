"""Values and files that every other package uses. Needs no torch."""
