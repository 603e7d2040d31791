from __future__ import annotations

from xml.etree import ElementTree as ET

import msgspec
import pytest

from wszoo.describe import ComponentView, ModelView, PlanView
from wszoo.digest import Digest
from wszoo.report import chart, page, reading_order, target_names, totals
from wszoo.text import human, share

ROW = PlanView(
    component="unet",
    target="rtx-sm89",
    kind="splice",
    backend="tensorrt_rtx",
    version="1.7.1",
    profiles=(),
    engine_bytes=5_000_000_000,
    plan_bytes=170_000,
    shared_bytes=169_000,
    index_digest=Digest.of(b"index"),
    manifest_digest=Digest.of(b"manifest"),
    plan_digest=Digest.of(b"sm89"),
    shared_digest=Digest.of(b"base"),
    engine_digest=Digest.of(b"engine"),
    kept_as=Digest.of(b"tree"),
    held=True,
)
SECOND = msgspec.structs.replace(ROW, target="rtx-sm86", plan_digest=Digest.of(b"sm86"))
VIEW = ModelView(
    ref="sdxl:1.0",
    index_digest=Digest.of(b"index"),
    manifest_digest=Digest.of(b"model"),
    family="sdxl",
    licence="",
    weight_bytes=5_100_000_000,
    weight_stored_bytes=4_300_000_000,
    components=(),
    plans=(ROW, SECOND),
    assets=(),
    options={},
    provenance={},
    trust=None,
    signatures=0,
)


def test_layers_that_plans_share_count_once() -> None:
    total = totals(VIEW)
    assert (total.full, total.weights, total.plans) == (10_000_000_000, 4_300_000_000, 169_000 + 2 * 1_000)


def test_the_chart_is_xml_with_a_pair_of_bars_for_each_target() -> None:
    root = ET.fromstring(chart(VIEW))
    texts = [node.text for node in root.iter("{http://www.w3.org/2000/svg}text")]
    for label in ("2 full engines", "rtx-sm89, full", "rtx-sm89, shipped", "rtx-sm86, shipped"):
        assert label in texts
    assert len(list(root.iter("{http://www.w3.org/2000/svg}rect"))) == 3 + 2 * 2


def test_bars_are_drawn_to_one_scale() -> None:
    bars = [float(rect.get("width") or 0) for rect in ET.fromstring(chart(VIEW)).iter() if "rect" in rect.tag]
    assert bars[0] == pytest.approx(bars[3] * 2, rel=1e-3)


def test_plans_are_listed_as_people_read_them() -> None:
    named = [
        ("vae", "portable"),
        ("unet", "rtx-sm120"),
        ("vae", "rtx-sm86"),
        ("unet", "rtx-sm75"),
        ("unet", "portable"),
    ]
    plans = tuple(
        msgspec.structs.replace(
            ROW, component=component, target=target, kind="portable" if target == "portable" else "x"
        )
        for component, target in named
    )
    parts = tuple(
        ComponentView(name=name, inputs=(), outputs=(), tensors=1, weight_bytes=1, graph_bytes=1)
        for name in ("unet", "vae")
    )
    found = reading_order(msgspec.structs.replace(VIEW, plans=plans, components=parts))
    assert [(plan.component, plan.target) for plan in found] == [
        ("unet", "rtx-sm75"),
        ("unet", "rtx-sm120"),
        ("unet", "portable"),
        ("vae", "rtx-sm86"),
        ("vae", "portable"),
    ]


def test_profiles_tell_plans_of_one_target_apart() -> None:
    wide, narrow = (msgspec.structs.replace(ROW, profiles=names) for names in (("1024",), ("512", "768")))
    assert target_names([wide, SECOND, narrow]) == ["rtx-sm89 (1024)", "rtx-sm86", "rtx-sm89 (512, 768)"]
    assert "rtx-sm89 (512, 768)" in page(msgspec.structs.replace(VIEW, plans=(wide, narrow)))


def test_hostile_names_are_text_everywhere() -> None:
    evil = "<script>alert(1)</script>\"'&"
    plan = msgspec.structs.replace(ROW, target=evil, component=evil)
    view = msgspec.structs.replace(VIEW, ref=evil, plans=(plan,))
    for made in (chart(view), page(view)):
        assert "<script" not in made
        assert "&lt;script&gt;" in made
    ET.fromstring(chart(view))


def test_the_page_asks_nobody_for_anything() -> None:
    made = page(VIEW).replace("http://www.w3.org/2000/svg", "")
    assert "http" not in made.replace("http-equiv", "")
    assert "default-src 'none'" in made


def test_a_model_without_plans_has_a_report_too() -> None:
    ET.fromstring(chart(msgspec.structs.replace(VIEW, plans=())))


def test_sizes_have_three_digits() -> None:
    sizes = {0: "0 B", 999: "999 B", 1000: "1.00 kB", 47_539_020: "47.5 MB", 123_456_789: "123 MB", 5.2e15: "5200 TB"}
    assert {number: human(number) for number in sizes} == sizes
    shares = {(1, 0): "-", (0, 5): "0 %", (42, 100_000): "0.042 %", (22, 100_000_000): "0.000022 %", (1, 2): "50 %"}
    assert {(part, whole): share(part, whole) for part, whole in shares} == shares
