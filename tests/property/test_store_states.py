"""Any sequence of publishing, deleting, pinning and collecting leaves a store that a dictionary predicts."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builders import age
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from wszoo.names import Ref
from wszoo.schema.decode import decode, encode
from wszoo.schema.oci import INDEX, MANIFEST, REF_NAME, Descriptor, Index, Manifest
from wszoo.store.gc import collect
from wszoo.store.store import Store
from wszoo.store.verify import verify

if TYPE_CHECKING:
    from wszoo.digest import Digest

TAGS = ["net:1", "net:RC", "net:rc", "con:aux", "a/b:1"]


class StoreStates(RuleBasedStateMachine):
    """The store against ``tag -> blobs that it needs``."""

    seen = Bundle("seen")

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "store")
        self.expected: dict[str, tuple[Descriptor, set[Digest]]] = {}
        self.garbage: set[Digest] = set()

    def teardown(self):
        shutil.rmtree(self.folder)

    @rule(tag=st.sampled_from(TAGS), layers=st.lists(st.binary(min_size=1, max_size=2), max_size=3))
    def publish(self, tag, layers):
        """A tag points to an index of one manifest with these layers."""
        descriptor, needed = self._write(layers)
        ref = Ref.parse(tag)
        assert self.store.refs.swap(ref, descriptor, held=None, expected=self.store.refs.find(ref))
        self.expected[tag] = descriptor, needed

    @rule(tag=st.sampled_from(TAGS))
    def delete(self, tag):
        """A tag goes; deleting one that is not there changes nothing."""
        ref = Ref.parse(tag)
        assert self.store.refs.swap(ref, None, held=None, expected=self.store.refs.find(ref))
        self.expected.pop(tag, None)

    @rule(target=seen, tag=st.sampled_from(TAGS))
    def look(self, tag):
        """Remember how a tag stands now."""
        return tag, self.store.refs.find(Ref.parse(tag))

    @rule(looked=seen)
    def swap_with_what_was_seen(self, looked):
        """An update on old knowledge succeeds exactly when nothing has changed."""
        tag, entry = looked
        now = self.store.refs.find(Ref.parse(tag))
        descriptor, needed = self._write([b"late"])
        done = self.store.refs.swap(Ref.parse(tag), descriptor, held=None, expected=entry)
        # A ref that was deleted looks like one that never was.
        assert done == (now == entry)
        if done:
            self.expected[tag] = descriptor, needed

    @rule(data=st.binary(max_size=3))
    def litter(self, data):
        """A blob that nothing reaches."""
        self.garbage.add(self.store.blobs.put(b"litter" + data))

    @rule()
    def collect(self):
        """What nothing reaches goes, and nothing else."""
        age(self.store)
        live = {digest for _, needed in self.expected.values() for digest in needed}
        before = set(self.store.blobs.all())
        assert set(collect(self.store).deleted) == before - live
        assert set(self.store.blobs.all()) == live
        self.garbage.clear()

    @invariant()
    def refs_are_as_expected(self):
        """Refs, index.json and lookups agree."""
        expected = {tag: descriptor for tag, (descriptor, _) in self.expected.items()}
        assert {entry.ref.tagged: entry.descriptor for entry in self.store.refs.all()} == expected
        for tag in TAGS:
            found = self.store.refs.find(Ref.parse(tag))
            assert (found.descriptor if found else None) == expected.get(tag)
        if self.store.layout.index.exists():
            index = decode(self.store.layout.index.read_bytes(), Index, what="index.json")
            assert {each.annotations[REF_NAME]: each.digest for each in index.manifests} == {
                tag: descriptor.digest for tag, descriptor in expected.items()
            }

    @invariant()
    def nothing_that_is_needed_is_missing(self):
        """Garbage stays until it is collected; what a ref needs stays always."""
        here = set(self.store.blobs.all())
        assert {digest for _, needed in self.expected.values() for digest in needed} <= here
        assert self.garbage <= here
        assert verify(self.store).problems == ()

    def _write(self, layers):
        config = self._blob(b"{}")
        made = tuple(self._blob(layer) for layer in layers)
        manifest = self._blob(encode(Manifest(artifact_type="a", config=config, layers=made)), MANIFEST)
        index = self._blob(encode(Index(manifests=(manifest,))), INDEX)
        return index, {each.digest for each in (index, manifest, config, *made)}

    def _blob(self, data, media_type="m"):
        return Descriptor(media_type=media_type, digest=self.store.blobs.put(data), size=len(data))


TestStoreStates = StoreStates.TestCase
TestStoreStates.settings = settings(max_examples=12, stateful_step_count=20, deadline=None)
