"""Writes ``corpus/``: small inputs made from real documents, for the fuzzer to start from.

``python tests/fuzz/seeds.py``; the files are committed, so that a run does not depend on this.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
CORPUS = HERE / "corpus"
ZERO = "sha256:" + "0" * 64
LOCK = f"""version = 1
gpus = ["sm89", "none"]

[[models]]
name = "net"
tag = "1"
index = {{digest = "{ZERO}", size = 10}}
manifest = {{digest = "{ZERO}", size = 10}}
config = {{digest = "{ZERO}", size = 10}}
graphs = [{{digest = "{ZERO}", size = 10}}]
packs = [{{digest = "{ZERO}", size = 10}}]

[[models.plans]]
component = "net"
target = "rtx-sm89"
gpus = ["sm89"]
manifest = {{digest = "{ZERO}", size = 10}}
config = {{digest = "{ZERO}", size = 10}}
layers = [{{digest = "{ZERO}", size = 10}}]
engine = {{digest = "{ZERO}", size = 10}}
"""


TEXT = b"\n".join(b'call={ name="__mye%d" offset=%d } %s' % (1000 + i * i, i, b"0x00ff" * (i % 7)) for i in range(200))


def seeds():
    """Target -> inputs by name."""
    import numpy as np
    from builders import network, publish_model
    from fuzz.targets import _splice, seed_envelope

    from wszoo.codecs import frames, xz, zstd
    from wszoo.names import Ref
    from wszoo.plans.splice import pack, pack_base
    from wszoo.plans.splice.lines import Lines
    from wszoo.plans.splice.renaming import Renaming
    from wszoo.publish import read_published
    from wszoo.schema.decode import encode
    from wszoo.schema.refit import Operand, RefitMap, RefitWeights
    from wszoo.schema.runtime_cache import RuntimeCacheFacts
    from wszoo.schema.trust import EMPTY, SignatureManifest, decode_envelope
    from wszoo.store.store import Store
    from wszoo.store.substitutes import Place, Substitute
    from wszoo.weights.graph import graph_from_model

    store = Store(Path(tempfile.mkdtemp()))
    publish_model(store, "net:1", width=16)
    found = read_published(store, Ref.parse("net:1"))
    read = lambda descriptor: store.blobs.read(descriptor.digest, limit=1 << 20)  # noqa: E731
    (record,) = store.layout.refs.rglob("record.json")
    body = _splice()[2]
    weights = np.linspace(0, 1, 512, dtype=np.float32).view(np.uint8)
    frame = frames.encode(weights, 4)
    pack_digest = found.model.config.packs[0]
    operand = Operand(tensor=0)
    refit = RefitMap(
        mode="identical",
        plan_bytes=1000,
        weights=(RefitWeights(name="t0", dtype="float16", count=512, operands=(operand,)),),
    )
    signature = SignatureManifest(artifact_type="a", config=EMPTY, layers=(EMPTY,), subject=EMPTY)
    cache = RuntimeCacheFacts(
        engine=pack_digest,
        backend="tensorrt_rtx",
        version="1.6.0.38",
        product="geforcertx4090",
        cuda="13.0",
        size=10,
        digest=pack_digest,
    )
    tensor, at = next(iter(found.model.config.frames.items()))
    place = Place(pack_digest, at[0].offset, at[0].stored, at[0].raw, at[0].codec)
    return {
        "index": {"model": read(found.entry.descriptor)},
        "layout_index": {"store": store.layout.index.read_bytes()},
        "manifest": {"model": read(found.model.descriptor), "plan": read(found.plans[0].descriptor)},
        "record": {"ref": record.read_bytes()},
        "substitute": {"table": encode(Substitute(pack=pack_digest, tensors={tensor: (place,)}))},
        "plan_config": {"plan": read(found.plans[0].manifest.config)},
        "model_config": {"model": read(found.model.manifest.config)},
        "frame": {
            "grouped": b"\x03" + len(weights).to_bytes(3, "little") + bytes(frame.data),
            "raw": b"\x00" + (3).to_bytes(3, "little") + b"abc",
            "zstd": b"\x01" + (100).to_bytes(3, "little") + zstd.compress(bytes(100), level=1),
        },
        "splice_container": {
            "base": b"b" + pack_base(body),
            "alone": b"a" + pack(body),
            "against": b"d" + pack(body + b"more", body),
            "xz": b"b\1" + xz.compress(b""),
            "lines": b"b" + pack_base(TEXT),
            "against_text": b"d" + pack(TEXT, body),
        },
        "splice_lines": {
            "text": b"l" + Lines.of(TEXT).to_bytes(),
            "renaming": b"r" + Renaming.between(Lines.of(TEXT), Lines.of(TEXT.replace(b"mye1", b"mye2"))).to_bytes(),
        },
        "splice_program": {"honest": body},
        "graph": {"apart": graph_from_model(network(0, 64)).proto, "whole": network(0, 4).SerializeToString()},
        "refit_map": {"copy": encode(refit)},
        "envelope": {"honest": seed_envelope()},
        "statement": {"honest": decode_envelope(seed_envelope(), "the seed").payload},
        "signature_manifest": {"honest": encode(signature)},
        "runtime_cache": {"one": encode(cache)},
        "registry": {
            "tags": b'{"name":"net","tags":["1.0","sha256-ab"]}',
            "repositories": b'{"repositories":["acme/net"]}',
            "token": b'{"token":"abc","access_token":"abc","expires_in":300}',
        },
        "lock": {"two": LOCK.encode()},
        "names": {"ref": b"acme/sdxl:1.0", "digest": str(pack_digest).encode(), "target": b"rtx-sm86-sm89"},
    }


def main():
    """Write them."""
    for target, inputs in seeds().items():
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
