"""Accuracies to learn from: short trainings, a supernet, or a table."""
