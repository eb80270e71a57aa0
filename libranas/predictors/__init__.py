"""Rank architectures from their scores, with labels or without: LIBRA, its rivals, and what judges them."""
