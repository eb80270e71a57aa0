"""Latency of networks: measured, or looked up in a table of measured blocks."""
