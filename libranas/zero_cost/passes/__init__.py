"""The runs of a network that proxies share."""
