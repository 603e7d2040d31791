"""Building many cells on many nodes, and publishing what comes of it together."""
