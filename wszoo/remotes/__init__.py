"""Remotes: places that blobs come from."""
