"""One search strategy a file."""
