"""Moving blobs from remotes into a store: in parallel, resumable, bounded, hashed, from several places if need be."""

from wszoo.transfer.documents import RemoteDocuments
from wszoo.transfer.fetching import fetch, missing
from wszoo.transfer.following import Follower, GivenUp
from wszoo.transfer.tuning import Tuning

__all__ = ["Follower", "GivenUp", "RemoteDocuments", "Tuning", "fetch", "missing"]
