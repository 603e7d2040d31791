"""Where builds run: this process, a pool of processes, or a cluster."""
