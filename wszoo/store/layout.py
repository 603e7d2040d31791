"""Where everything stands in a store, and the only place that turns a digest into a path.

::

    STORE/
      oci-layout                 marks an OCI image layout
      index.json                 every ref, for other OCI tools; derived from wszoo/refs
      blobs/sha256/<hex>         manifests, configs, graphs, packs, plans
      wszoo/                     private to wszoo; other tools ignore it
        refs/<key>/<generation>/ record.json: one update of one ref (see refs.py)
        engines/<hex>.plan       assembled plans by their sha256 (see engines.py); may be deleted at any time
        verified/<hex>           stamps of assembled plans whose bytes were hashed (see engines.py)
        engine-only/<hex>        models of which engines are kept, and no weights (see engine_only.py)
        runtime/<hex>/           what a backend keeps to load a plan faster; may be deleted at any time
        timing/                  what builders measured on this machine's GPU; may be deleted at any time
        built/<hex>.json         which plan a build gave, by what it was built from; may be deleted at any time
        failed/<hex>.json        why a build failed, with the end of its log; may be deleted at any time
        partials/                blobs that are being fetched, or whose fetching broke off (see partials.py)
        tensors/<hex>.json       where the tensors of a pack stand that is not here as a whole (see substitutes.py)
        accepted/<hex>.json      why an index was taken from a remote (see trust/record.py)
        releases/                the newest signed release seen of each ref at each remote (see trust/record.py)
        leases/                  who is working now, for gc
        quarantine/              damaged blobs that verify --quarantine put aside
        verifying/               what a verify that has not ended has hashed (see verified.py)
        tmp/                     files that are not finished
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wszoo.schema.decode import encode
from wszoo.schema.oci import Layout
from wszoo.store.files import storage_errors, sync_folder, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from wszoo.digest import Digest


class StoreLayout:
    """Paths of one store.

    Args:
        root: the store's folder; made by :meth:`create`, not before.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = root / "index.json"
        self.marker = root / "oci-layout"
        self.blobs = root / "blobs" / "sha256"
        self.private = root / "wszoo"
        self.refs = self.private / "refs"
        self.engines = self.private / "engines"
        self.verified = self.private / "verified"
        self.engine_only = self.private / "engine-only"
        self.runtime = self.private / "runtime"
        self.timing = self.private / "timing"
        self.built = self.private / "built"
        self.failed = self.private / "failed"
        self.partials = self.private / "partials"
        self.tensors = self.private / "tensors"
        self.accepted = self.private / "accepted"
        self.releases = self.private / "releases"
        self.leases = self.private / "leases"
        self.quarantine = self.private / "quarantine"
        self.verifying = self.private / "verifying"
        self.tmp = self.private / "tmp"

    def blob(self, digest: Digest) -> Path:
        """A blob's path."""
        return self.blobs / digest.hex

    def engine(self, digest: Digest) -> Path:
        """An assembled plan's path."""
        return self.engines / f"{digest.hex}.plan"

    def create(self) -> None:
        """Make the folders and the marker, unless they exist.

        Raises:
            StorageError: the file system refuses.
        """
        with storage_errors("create the store"):
            for folder in (self.blobs, self.engines, self.verified, self.runtime, self.built):
                folder.mkdir(parents=True, exist_ok=True)
            for folder in (self.partials, self.tensors, self.leases, self.quarantine, self.verifying, self.tmp):
                folder.mkdir(parents=True, exist_ok=True)
            if not self.marker.exists():
                # Else a power failure takes the folders, and what was stored in them with them.
                for folder in (self.blobs.parent, self.private, self.root, self.root.absolute().parent):
                    sync_folder(folder)
                write_atomic(self.marker, encode(Layout()), self.tmp)
