"""Pages: everything escaped, nothing inline, nothing from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from unit.catalog.conftest import EVIL

from wszoo.catalog.pages import FIRST, POLICY, SHARD, assets, list_page, shards
from wszoo.catalog.site import page_of
from wszoo.catalog.survey import Summary, Survey
from wszoo.names import Ref

LIMIT = 300_000  # bytes of a page with its scripts and styles, before data


class Read(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def page(store, name, *, url="https://zoo.example/x", beside=False):
    survey = Survey(store)
    place = [model.entry.ref.tagged for model in survey.models].index(name)
    return page_of(survey, place, url=url, beside=beside)


def every_page(store):
    survey = Survey(store)
    pages = [page_of(survey, place, url="", beside=True) for place in range(len(survey.models))]
    return [list_page(survey, ["data/x.js"]), *pages]


def test_hostile_text_is_text_on_every_page(evil_store):
    for made in every_page(evil_store):
        read = Read(made)
        assert "img" not in read.tags
        assert read.tags.count("script") <= 3
        assert not [name for name, _ in read.attributes if name.startswith("on")]
        assert b"\x1b" not in made
        assert "\u202e" not in made.decode()
        assert b"49" not in re.sub(rb"[0-9a-f]{12,}", b"", made)
    shown = Read(page(evil_store, "evil:1")).text
    assert sum("<script>alert(1)</script>" in text for text in shown) > 10


def test_pages_have_nothing_inline_and_ask_nobody_else(evil_store):
    for made in every_page(evil_store):
        read = Read(made)
        assert "style" not in read.tags
        assert not [name for name, _ in read.attributes if name == "style"]
        targets = [value for name, value in read.attributes if name in {"src", "href", "action"}]
        assert targets
        assert not [each for each in targets if "//" in (each or "") or (each or "").startswith("/")]
        assert POLICY.encode() in made.replace(b"&#39;", b"'")
    for asset in assets().values():
        assert b"http" not in asset.content.replace(b'startsWith("http")', b"").replace(
            b"http://www.w3.org/2000/svg", b""
        )
        assert b"innerHTML" not in asset.content


def test_data_is_json_that_cannot_leave_its_script(evil_store):
    survey = Survey(evil_store)
    for path, content in shards([model.summary for model in survey.models]).items():
        assert re.fullmatch(r"data/[0-9a-f]{16}\.js", path)
        inner = content.removeprefix(b"wszooCatalog.add(").removesuffix(b");\n")
        rows = json.loads(inner)
        assert [row[1] for row in rows] == ["evil:1", "net:1"]
        assert all(text.isprintable() for text in rows[0] if isinstance(text, str))
    assert EVIL.split("\u202e")[0] in rows[0][2]


def test_a_model_page_says_what_show_says(origin):
    text = " ".join(Read(page(origin, "net:1")).text)
    digest = origin.refs.get(Ref.parse("net:1")).descriptor.digest
    for word in ("rtx-sm86", "rtx-sm89", "portable", "splice", "float32[n, 64]", str(digest), "not signed"):
        assert word in text
    assert f"wszoo pull net:1@{digest} --gpu auto --from https://zoo.example/x" in text
    assert f"wszoo lock net:1@{digest} --gpu sm86,sm89 --from https://zoo.example/x" in text


def test_the_lock_file_on_the_page_is_one(origin):
    from wszoo.schema.lock import decode_lock

    text = next(text for text in Read(page(origin, "net:1")).text if "[[models]]" in text)
    lock = decode_lock(text.encode(), "the page")
    assert lock.gpus == ("sm86", "sm89")
    assert {plan.target for plan in lock.models[0].plans} == {"rtx-sm86", "rtx-sm89", "portable"}
    assert lock.models[0].remotes == ("https://zoo.example/x",)


@pytest.mark.parametrize("url", ["https://x.example/'; rm -rf ~", "https://x.example/$(id)", "a b"])
def test_an_address_cannot_leave_its_argument(origin, url):
    import shlex

    text = " ".join(Read(page(origin, "net:1", url=url)).text)
    command = re.search(r"wszoo pull net:1@.*? --gpu auto --from (.*?)\n* *Copy", text, re.DOTALL)
    assert shlex.split(command[1].strip()) == [url]


def test_the_list_page_is_light_however_many_models_there_are(origin):
    survey = Survey(origin)
    (model,) = survey.models
    survey.models = [model] * 10_000
    weight = len(list_page(survey, [])) + sum(len(asset.content) for asset in assets().values())
    assert weight < LIMIT
    read = Read(list_page(survey, []))
    assert read.tags.count("li") < FIRST * 6


def test_data_files_change_only_where_models_do():
    rows = [Summary(page=f"p{number}", ref=f"m{number}:1") for number in range(3 * SHARD)]
    before = shards(rows)
    rows[-1] = Summary(page="new", ref="new:1")
    after = shards(rows)
    assert len(before) == len(after) == 3
    assert list(before)[:2] == list(after)[:2]
    assert list(before)[2] != list(after)[2]
