"""Any sequence of publishing, deleting, pinning, damaging and collecting, by several processes, leaves a store that a
dictionary predicts.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from builders import age
from faults.hands import COUNT, Hands
from faults.tally import LONG, tally
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from wszoo.names import Ref
from wszoo.schema.decode import decode
from wszoo.schema.oci import REF_NAME, Descriptor, Index
from wszoo.store.store import Store

if TYPE_CHECKING:
    from wszoo.digest import Digest

TAGS = ["net:1", "net:RC", "net:rc", "con:aux", "a/b:1"]
tags = st.sampled_from(TAGS)
hands = st.integers(0, COUNT - 1)
contents = st.lists(st.binary(min_size=1, max_size=2), max_size=3)

processes = functools.cache(Hands)


class StoreStates(RuleBasedStateMachine):
    """The store against ``tag -> blobs that it needs``; every step is done by one of several processes."""

    seen = Bundle("seen")

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder / "store")
        self.expected: dict[str, tuple[Descriptor, set[Digest]]] = {}
        self.garbage: set[Digest] = set()

    def teardown(self):
        shutil.rmtree(self.folder)

    def ask(self, hand, operation, *arguments):
        """Let a process do something."""
        tally("store operations by several processes against a dictionary")
        return processes().ask(hand, operation, self.store.layout.root, *arguments)

    @rule(hand=hands, tag=tags, layers=contents)
    def publish(self, hand, tag, layers):
        """A tag points to an index of one manifest with these layers."""
        self.expected[tag] = self.ask(hand, "publish", tag, layers)

    @rule(hand=hands, tag=tags)
    def delete(self, hand, tag):
        """A tag goes; deleting one that is not there changes nothing."""
        self.ask(hand, "delete", tag)
        self.expected.pop(tag, None)

    @rule(target=seen, hand=hands, tag=tags)
    def look(self, hand, tag):
        """Remember how a tag stands now."""
        return tag, self.ask(hand, "look", tag)

    @rule(hand=hands, looked=seen)
    def swap_with_what_was_seen(self, hand, looked):
        """An update on old knowledge succeeds exactly when nothing has changed."""
        tag, entry = looked
        now = self.store.refs.find(Ref.parse(tag))
        done, descriptor, needed = self.ask(hand, "swap", tag, [b"late"], entry)
        # A ref that was deleted looks like one that never was.
        assert done == (now == entry)
        if done:
            self.expected[tag] = descriptor, needed

    @rule(hand=hands, data=st.binary(max_size=3))
    def litter(self, hand, data):
        """A blob that nothing reaches."""
        self.garbage.add(self.ask(hand, "litter", b"litter" + data))

    @rule(hand=hands)
    def collect(self, hand):
        """What nothing reaches goes, and nothing else."""
        age(self.store)
        before = set(self.store.blobs.all())
        assert self.ask(hand, "gc", 3600.0) == before - self.live()
        assert set(self.store.blobs.all()) == self.live()
        self.garbage.clear()

    @rule(layers=contents, more=contents, first=tags, second=tags)
    def publish_while_another_collects(self, layers, more, first, second):
        """Three at once: two publish, perhaps to one tag, and one collects without any grace."""
        age(self.store)
        root = self.store.layout.root
        processes().start(0, "publish", root, first, layers)
        processes().start(1, "gc", root, 0.0)
        processes().start(2, "publish", root, second, more)
        one, _, other = [processes().answer(hand) for hand in range(COUNT)]
        self.expected |= {first: one, second: other}
        if self.store.refs.find(Ref.parse(first)).descriptor == one[0]:  # of two for one tag, either may be last
            self.expected[first] = one
        self.garbage &= set(self.store.blobs.all())

    @rule(hand=hands, choice=st.integers(0, 1000))
    def damage_is_found_and_put_aside(self, hand, choice):
        """Any blob that changes is found by any process, put aside, and whole again when it is written again."""
        here = sorted(self.store.blobs.all())
        if not here:
            return
        digest = here[choice % len(here)]
        good = self.store.blobs.path(digest).read_bytes()
        self.ask(hand, "damage", digest)
        found = self.ask((hand + 1) % COUNT, "problems", True)
        assert digest.hex in found
        assert self.store.blobs.size(digest) is None
        assert self.ask(hand, "litter", good) == digest

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
        assert self.live() <= here
        assert self.garbage <= here
        assert self.ask(0, "problems") == set()

    def live(self):
        """What refs need."""
        return {digest for _, needed in self.expected.values() for digest in needed}


TestStoreStates = StoreStates.TestCase
TestStoreStates.settings = settings(
    max_examples=300 if LONG else 7, stateful_step_count=30 if LONG else 20, deadline=None
)
