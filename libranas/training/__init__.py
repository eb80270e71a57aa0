"""Training: recipes as data, one loop for a laptop and a cluster, and a short one for many small networks."""
