"""OCI image-spec documents, the part of them that wszoo writes and reads.

Source: the OCI image specification 1.1 (descriptor, image index, image manifest, image layout).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

from wszoo.digest import Digest
from wszoo.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Iterable

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
LAYOUT_VERSION = "1.0.0"
REF_NAME = "org.opencontainers.image.ref.name"
TITLE = "org.opencontainers.image.title"

HELD = "org.wszoo.held"

Size = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A typed, sized pointer to a blob.

    Attributes:
        media_type: what the blob is.
        digest: sha256 of the blob's bytes.
        size: the blob's length in bytes.
        annotations: facts that a reader may use without fetching the blob.
        artifact_type: of the manifest it points to, if it points to one.
    """

    media_type: str
    digest: Digest
    size: Size
    annotations: dict[str, str] = {}
    artifact_type: str = ""


class Index(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An image index: one model at one version, or the list of refs at the top of a layout."""

    schema_version: Literal[2] = 2
    media_type: str = INDEX
    manifests: tuple[Descriptor, ...] = ()
    annotations: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An image manifest: a config and the layers it explains."""

    schema_version: Literal[2] = 2
    media_type: str = MANIFEST
    artifact_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: dict[str, str] = {}


class Layout(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The ``oci-layout`` marker file."""

    image_layout_version: str = LAYOUT_VERSION


def held_in(descriptor: Descriptor) -> tuple[Digest, ...] | None:
    """Which plan manifests of an index stand in the layout that lists it; None when all do, or when it does not say."""
    try:
        found = tuple(Digest(each) for each in descriptor.annotations.get(HELD, "").split())
    except MalformedError:
        return None
    return found or None


def with_held(descriptor: Descriptor, held: Iterable[Digest] | None) -> Descriptor:
    """A copy that says which plan manifests of the index are there; None for all."""
    annotations = {name: text for name, text in descriptor.annotations.items() if name != HELD}
    if held is not None:
        annotations[HELD] = " ".join(sorted(held))
    return msgspec.structs.replace(descriptor, annotations=annotations)
