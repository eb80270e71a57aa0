"""The configuration of a run: its schema and its checks."""
