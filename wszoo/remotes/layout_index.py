"""The ``index.json`` at the top of an OCI image layout, where remotes keep it as one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from wszoo.errors import LimitError, NotFoundError, WszooError
from wszoo.names import Ref
from wszoo.schema.decode import MAX_DOCUMENT, MAX_MANIFEST, decode
from wszoo.schema.oci import INDEX, REF_NAME, Descriptor, Index

if TYPE_CHECKING:
    from collections.abc import Iterator


def decode_layout_index(data: bytes, url: str) -> Index:
    """Decode an ``index.json``.

    Raises:
        IntegrityError: it is none.
    """
    return decode(data, Index, what=f"index.json of {url}", limit=MAX_DOCUMENT)


def refs_of(index: Index) -> list[Ref]:
    """The refs that it lists, signatures among them; what other tools keep there is passed over."""
    return [ref for ref, _ in _entries(index)]


def models_of(index: Index) -> list[Ref]:
    """The models that it lists."""
    return [ref for ref in refs_of(index) if not ref.is_referrers]


def find(index: Index, ref: Ref, url: str) -> Descriptor:
    """What a ref points to; a pin in it is not compared.

    Raises:
        NotFoundError: there is no such ref; the hint lists the tags that the name has.
        LimitError: the index claims to be larger than any reader accepts.
    """
    entries = dict(_entries(index))
    found = entries.get(ref.unpinned)
    if found is None:
        models = models_of(index)
        known = [other.tagged for other in models if other.name == ref.name] or [other.tagged for other in models]
        raise NotFoundError(f"no {ref.tagged} at {url}", hint=f"there is: {', '.join(known[:10]) or 'nothing'}")
    if found.size > MAX_MANIFEST:
        raise LimitError(f"the index of {ref.tagged} at {url} claims {found.size} bytes")
    return found


def with_ref(index: Index, ref: Ref, descriptor: Descriptor) -> Index:
    """A copy in which a ref points to something else; everything else stays, also what is not ours."""
    name = {REF_NAME: ref.tagged}
    kept = (each for each in index.manifests if each.annotations.get(REF_NAME) != ref.tagged)
    added = msgspec.structs.replace(descriptor, annotations={**descriptor.annotations, **name})
    return msgspec.structs.replace(index, manifests=(*kept, added))


def _entries(index: Index) -> Iterator[tuple[Ref, Descriptor]]:
    for each in index.manifests:
        try:
            ref = Ref.parse(each.annotations.get(REF_NAME, "")).unpinned
        except WszooError:
            continue
        if each.media_type == INDEX:
            yield ref, each
