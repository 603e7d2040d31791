"""The catalog in a real browser: headless Chromium, which the system's packages bring."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from contract.servers import program
from unit.catalog.conftest import EVIL, evil_store

from wszoo.catalog import site
from wszoo.catalog.live import Catalog
from wszoo.catalog.pages import POLICY
from wszoo.catalog.site import write_site
from wszoo.catalog.survey import Summary, Survey, page_name
from wszoo.distribution.serve import StoreServer
from wszoo.names import Ref

__all__ = ["evil_store"]

ROOT = Path(__file__).parents[2]
MANY = 10_000
FIRST_PAINT = 1000  # ms
PAGE_BYTES = 300_000  # without the data

# What a page notes about itself before anything of it runs.
WATCH = """
window.violations = 0;
document.addEventListener("securitypolicyviolation", () => { window.violations += 1; });
"""


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    path = program("chromium", "apt-get install chromium")
    with sync_playwright() as playwright:
        # Containers have no user namespaces for the sandbox, and the pages are ours.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


class Watched:
    """A page, and everything that it asked for or complained about."""

    def __init__(self, page):
        self.page = page
        self.requests, self.errors, self.bytes = [], [], {}
        page.add_init_script(WATCH)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: (self.errors.append("dialog"), dialog.dismiss()))
        page.on("response", self._weigh)

    def _weigh(self, response):
        with suppress(Exception):  # a page that was left keeps no bodies
            self.bytes[response.url] = len(response.body())

    def check(self, *origins):
        """Nothing went wrong, nothing was refused, nobody else was asked."""
        assert self.errors == []
        assert self.page.evaluate("window.violations") == 0
        assert [url for url in self.requests if not url.startswith(origins)] == []


@pytest.fixture
def browse(chromium):
    contexts = []

    def opened(**options):
        context = chromium.new_context(**options)
        contexts.append(context)
        return Watched(context.new_page())

    yield opened
    for context in contexts:
        context.close()


@contextmanager
def serving(store, pages=None):
    with StoreServer(store, pages=pages or Catalog(store)) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def sample(browse):
    from wszoo.store.store import Store

    with serving(Store(ROOT / "store")) as url:
        watched = browse(color_scheme="light")
        watched.page.goto(url)
        watched.page.wait_for_selector("body[data-ready]")
        yield watched
        watched.check(url)


def names(page):
    return page.locator("#models h2").all_inner_texts()


def test_search_and_filters_narrow_the_list_and_can_be_linked_to(sample):
    page = sample.page
    assert len(names(page)) == 4
    page.keyboard.press("/")
    page.keyboard.type("writer LATEST")
    assert names(page) == ["digit-writer:latest"]
    assert page.get_by_role("status").first.inner_text() == "1 of 4 models"
    page.goto(page.url)  # what is in the address comes back
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert names(page) == ["digit-writer:latest"]
    page.get_by_role("searchbox").fill("")
    page.get_by_label("GPU").select_option("sm120")
    page.get_by_label("Family").select_option("onnx")
    assert len(names(page)) == 4
    page.get_by_label("Size here").select_option("-10e9")
    assert names(page) == []
    page.get_by_role("button", name="Clear all filters").click()
    assert len(names(page)) == 4
    page.get_by_label("Order").select_option("large")
    assert names(page)[0].startswith("digits-cnn")


def test_a_model_is_reached_and_its_command_copied_by_keyboard_alone(sample):
    page = sample.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    page.get_by_role("link", name="digits-cnn:1.0").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#pull")
    assert page.get_by_role("heading", level=1).inner_text() == "digits-cnn:1.0"
    page.get_by_role("button", name="Copy pull command").focus()
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.getElementById('said').textContent")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == page.locator("#pull").inner_text().strip()
    assert copied.startswith("wszoo pull digits-cnn:1.0@sha256:")
    assert f"--from {'/'.join(page.url.split('/')[:3])}" in copied


def test_every_part_of_a_model_has_a_name_for_screen_readers(sample):
    page = sample.page
    page.get_by_role("link", name="digits-cnn:1.0").click()
    for name in ("Get it", "Sizes", "Targets", "Components", "Shared weights", "Where it comes from"):
        assert page.get_by_role("region", name=name).count() >= 1
        assert page.get_by_role("heading", name=name, exact=True).count() == 1
    assert page.get_by_role("main").count() == page.get_by_role("banner").count() == 1
    assert page.get_by_role("img", name="digits-cnn:1.0: full engines and what wszoo ships").count() == 1
    controls = page.locator("button:visible, a:visible, input:visible, select:visible")
    assert controls.evaluate_all("all => all.filter(each => !(each.innerText || each.labels?.length)).length") == 0
    assert page.locator("table.matrix tbody th[scope=row]").all_inner_texts()[-1] == "portable"


CONTRAST = """
([ink, back]) => {
  const probe = document.createElement("i");
  document.body.append(probe);
  const light = (name) => {
    probe.className = "";
    probe.style.color = `var(${name})`;
    const [r, g, b] = getComputedStyle(probe).color.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
  };
  const [a, b] = [light(ink), light(back)];
  probe.remove();
  return Math.max(a, b) / Math.min(a, b);
}
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(sample, scheme):
    sample.page.emulate_media(color_scheme=scheme)
    for pair in (("--ink", "--back"), ("--soft", "--card"), ("--soft", "--back"), ("--accent", "--card"),
                 ("--accent", "--back"), ("--ink", "--accent-back"), ("--soft", "--accent-back"),
                 ("--warn", "--warn-back"), ("--card", "--accent")):  # fmt: skip
        assert sample.page.evaluate(CONTRAST, pair) >= 4.5, pair


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_dark_mode_follows_the_system_until_it_is_chosen(sample):
    page = sample.page
    light = background(page)
    page.emulate_media(color_scheme="dark")
    dark = background(page)
    assert dark != light
    toggle = page.get_by_role("button", name="Dark mode")
    page.wait_for_selector("#theme[aria-pressed=true]")  # the browser tells the page a moment later
    toggle.click()
    assert background(page) == light
    page.get_by_role("link", name="digits-cnn:1.0").click()
    assert background(page) == light  # on other pages too
    toggle.click()
    page.emulate_media(color_scheme="light")
    assert background(page) == dark


@pytest.mark.parametrize("width", [320, 768, 1600])
def test_pages_fit_narrow_and_wide_windows(sample, width):
    page = sample.page
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("link", name="digits-cnn:1.0").click()
    page.wait_for_selector("#pull")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_static_pages_work_from_a_disk(browse, origin, tmp_path):
    write_site(origin, tmp_path / "site", url="https://zoo.example/x")
    watched = browse()
    watched.page.goto((tmp_path / "site" / "index.html").as_uri())
    watched.page.wait_for_selector("body[data-ready]")
    watched.page.get_by_role("searchbox").fill("net")
    watched.page.get_by_role("link", name="net:1").click()
    watched.page.wait_for_selector("#pull")
    watched.page.get_by_role("link", name="All models").click()
    watched.page.wait_for_selector("body[data-ready]")
    assert names(watched.page) == ["net:1"]
    watched.check("file://")


def test_static_pages_beside_a_store_know_its_address(browse, origin, tmp_path):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    write_site(origin, origin.layout.root)
    handler = partial(SimpleHTTPRequestHandler, directory=str(origin.layout.root.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/{origin.layout.root.name}"
        watched = browse()
        watched.page.goto(f"{url}/index.html")
        watched.page.get_by_role("link", name="net:1").click()
        watched.page.wait_for_selector("#pull")
        assert watched.page.locator("#pull").inner_text().strip().endswith(f"--from '{url}'")
        server.shutdown()


def test_hostile_text_in_every_field_is_only_text(browse, evil_store, tmp_path):
    with serving(evil_store) as url:
        watched = browse()
        page = watched.page
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        page.get_by_role("searchbox").fill("<script>alert")
        assert names(page) == ["evil:1"]
        page.get_by_label("Family").select_option(index=1)
        assert page.locator("#models img, #models script").count() == 0
        page.get_by_role("link", name="evil:1").click()
        page.wait_for_selector("#pull")
        text = page.locator("main").inner_text()
        assert text.count("<script>alert(1)</script>") > 10
        assert "{{7*7}}" in text
        assert "second line" in text
        assert page.locator("main img[src=x], main script").count() == 0
        page.set_viewport_size({"width": 320, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 320
        page.screenshot(path=tmp_path / "evil.png", full_page=True)
        watched.check(url)


@pytest.mark.parametrize(
    "hash_", ["q=<script>alert(1)</script>", "order=__proto__", "constructor=1", "q=%F0%9F", "size=NaN"]
)
def test_a_hostile_link_only_filters(sample, hash_):
    page = sample.page
    page.goto("about:blank")
    page.goto(f"{next(url for url in sample.requests if url.startswith('http'))}#{hash_}")
    page.wait_for_selector("body[data-ready]")
    assert page.locator("#models li.model, #none").first.is_visible()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A site of 10,000 models: the list and its data are written as always, and one page of all."""
    folder = tmp_path_factory.mktemp("many")
    families, gpus = ("cnn", "llm", EVIL, "sdxl"), ("sm75", "sm86", "sm89", "sm120", "portable")
    refs = [Ref.parse(f"acme/network-{number // 4:04d}:{number % 4}.0") for number in range(MANY)]
    models = [
        Summary(
            page=page_name(ref),
            ref=ref.tagged,
            family=msgspec.json.decode(msgspec.json.encode(families[number % 4])),
            gpus=gpus[: 1 + number % 5],
            full=10**7 + number * 10**6,
            stored=10**6 + number * 10**5,
            licence="Apache-2.0",
            signatures=number % 2,
        )
        for number, ref in enumerate(refs)
    ]
    from wszoo.catalog.sharing import tensors_of
    from wszoo.catalog.survey import Surveyed
    from wszoo.digest import Digest
    from wszoo.schema.oci import INDEX, Descriptor
    from wszoo.store.refs import Entry
    from wszoo.store.store import Store

    survey = Survey(Store(folder / "none"))
    for ref, model in zip(refs, models, strict=True):
        descriptor = Descriptor(media_type=INDEX, digest=Digest.of(ref.tagged.encode()), size=1)
        survey.models.append(Surveyed(Entry(ref, descriptor, None, 1), model, tensors_of({}), b""))
    made = {"index.html": site.list_page(survey, list(data := site.shards(models)))}
    made |= {f"catalog/{path}": content for path, content in data.items()}
    made |= {f"catalog/{asset.path}": asset.content for asset in site.assets().values()}
    for path, content in made.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_ten_thousand_models_are_painted_within_a_second_and_searched_at_once(browse, many):
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(many))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/"
        watched = browse()
        page = watched.page
        page.goto(url)
        page.wait_for_selector("body[data-ready]")
        paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        data = sum(size for path, size in watched.bytes.items() if "/data/" in path)
        rest = sum(watched.bytes.values()) - data
        spent = page.evaluate(
            "() => { const q = document.querySelector('[name=q]'); const start = performance.now(); q.value = '4321';"
            " q.dispatchEvent(new Event('input', {bubbles: true})); return performance.now() - start; }"
        )
        print(f"first paint {paint:.0f} ms, {rest} bytes and {data} of data, a search {spent:.1f} ms")  # noqa: T201
        assert paint < FIRST_PAINT
        assert 0 < rest < PAGE_BYTES
        assert data > MANY * 50
        assert spent < 200
        assert names(page) == []  # there are 2,500 networks
        page.get_by_role("searchbox").fill("network-1234")
        assert len(names(page)) == 4
        page.get_by_role("searchbox").fill("")
        page.get_by_role("button", name="Show more").click()
        assert len(names(page)) == 100
        assert page.evaluate("document.activeElement.textContent") == names(page)[50]
        watched.check(url)
        server.shutdown()


def test_the_policy_that_the_browser_enforces_is_the_strict_one(sample):
    page = sample.page
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy == POLICY
    # It bites: a script that is put into the page does not run, and a request to elsewhere is not made.
    page.evaluate(
        "() => { const bad = document.createElement('script'); bad.textContent = 'window.ran = 1';"
        " document.body.append(bad); new Image().src = 'https://example.invalid/x'; }"
    )
    page.wait_for_function("() => window.violations >= 2")
    assert page.evaluate("window.ran") is None
    page.evaluate("window.violations = 0")
    sample.errors.clear()
    sample.requests[:] = [url for url in sample.requests if "example.invalid" not in url]
