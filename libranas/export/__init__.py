"""Exports of a trained network."""
