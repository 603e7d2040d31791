"""Plan facts in annotations, and their fallback."""

from __future__ import annotations

import pytest

from wszoo.digest import Digest
from wszoo.errors import IntegrityError
from wszoo.schema.facts import PlanFacts, from_annotations, to_annotations
from wszoo.schema.oci import Descriptor
from wszoo.schema.plan import HardwareCompatibility, Kind, Target

FACTS = PlanFacts(
    component="net",
    kind=Kind.SPLICE,
    target=Target(
        name="trt-sm80+",
        backend="tensorrt",
        version="10.13.2",
        compute_capabilities=("8.0",),
        hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
    ),
    profiles=("small", "large"),
    engine_digest=Digest.of(b"engine"),
    engine_bytes=6,
    plan_bytes=5,
    shared_bytes=3,
    plan_digest=Digest.of(b"plan"),
)


def described(**annotations):
    return Descriptor(media_type="a", digest=Digest.of(b""), size=0, annotations=annotations)


def test_facts_survive_annotations():
    annotations = to_annotations(FACTS)
    assert from_annotations(described(**annotations)) == FACTS
    assert annotations["org.wszoo.component"] == "net"
    assert annotations["org.wszoo.target"] == "trt-sm80+"


def test_missing_annotations_mean_that_the_config_must_be_read():
    assert from_annotations(described()) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "{", "\ud800", '{"component":1}', "[" * 100_000])
def test_malformed_facts_are_refused_and_name_the_plan(text):
    with pytest.raises(IntegrityError) as caught:
        from_annotations(described(**{"org.wszoo.plan": text}))
    assert f"org.wszoo.plan of {Digest.of(b'')}" in caught.value.message
