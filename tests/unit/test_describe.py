"""What list says, against the files themselves."""

from __future__ import annotations

from builders import publish_model

from wszoo.describe import list_refs
from wszoo.store.documents import plan_descriptors, reachable, read_index

DOCUMENT = 2000  # bytes that a plan's manifest and config stay under here


def test_the_size_on_disk_leaves_out_plans_documents_only(origin):
    publish_model(origin, "other:1", seed=1, targets=("rtx-sm75",), portable=False)
    views, damage = list_refs(origin)
    assert ([view.ref for view in views], damage) == (["net:1", "other:1"], [])
    for view, entry in zip(views, origin.refs.all(), strict=True):
        blobs = {each.digest for each in reachable(origin, entry.descriptor, entry.held)}
        whole = sum(origin.blobs.path(digest).stat().st_size for digest in blobs)
        plans = plan_descriptors(read_index(origin, entry.descriptor))
        documents = sum(plan.size for plan in plans)
        assert documents < whole - view.stored_bytes < DOCUMENT * len(plans)
