"""Runs of the workflow: their folder, and the machines that they use."""
