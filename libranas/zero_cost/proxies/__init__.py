"""The zero-cost proxies, one paper a file."""
