"""A real Ray cluster on this machine: a process group a node, each with labels and a store of its own."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

# Else it takes Ray ten seconds and more to notice that a node was killed; a busy one has six to answer.
WATCHED = {"health_check_period_ms": 1000, "health_check_timeout_ms": 2000, "health_check_failure_threshold": 3}
OBJECTS = 80 << 20  # bytes of Ray's object store a node: its least; wszoo sends no weights through it


class Nodes:
    """Starts and kills nodes.

    Args:
        folder: for the nodes' stores.
    """

    def __init__(self, folder):
        from ray.cluster_utils import Cluster

        self._folder = folder
        self._cluster = Cluster(shutdown_at_exit=False)
        self._stores = {}
        self.address = ""

    def add(self, labels, *, gpus=0, cpus=1, memory=4 << 30):
        """Start a node; its store is ``node-N`` below the folder."""
        store = self._folder / f"node-{len(self._stores)}"
        head = {} if self._stores else {"_system_config": WATCHED}
        node = self._cluster.add_node(
            **head,
            num_cpus=cpus,
            num_gpus=gpus,
            memory=memory,
            labels=labels,
            object_store_memory=OBJECTS,
            include_dashboard=False,
            env_vars={"WSZOO_STORE": str(store)},
        )
        self._stores[node] = store
        self.address = self._cluster.address
        return node

    def store_of(self, node):
        """The node's own store."""
        return self._stores[node]

    def kill(self, node):
        """End a node with all of its workers at once, as a power failure would."""
        self._cluster.remove_node(node, allow_graceful=False)

    def stop(self):
        """End all of them, and remove their logs and sockets."""
        sessions = {node.get_session_dir_path() for node in self._stores}
        self._cluster.shutdown()
        for session in sessions:
            shutil.rmtree(session, ignore_errors=True)


@contextmanager
def ray_nodes(folder):
    """A cluster without nodes yet."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DISABLE_DOCKER_CPU_WARNING", "1")
    nodes = Nodes(folder)
    try:
        yield nodes
    finally:
        nodes.stop()
