"""Score an untrained network with zero-cost proxies."""
