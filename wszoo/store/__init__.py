"""The durable, content-addressed store: an OCI image layout with compare-and-swap refs."""
