"""Models on their way between stores: pull, push, serve, and making whole what is here only in part or damaged."""
