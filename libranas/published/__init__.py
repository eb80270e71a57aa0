"""Published tables: those of benchmarks, and those that the paper prints."""
