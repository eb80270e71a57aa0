"""Convolutional search spaces: NAS-Bench-101, NAS-Bench-201, TransNAS-Bench-101 and DARTS."""
