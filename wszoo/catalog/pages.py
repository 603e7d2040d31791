"""Pages as bytes: templates with everything escaped, scripts and styles in files of their own.

Any text of a model may be hostile. It reaches HTML only through Jinja's autoescape, data files only as JSON, and the
scripts put it into pages as text. What could steer a terminal or turn writing around is replaced before that. A strict
content security policy is the second line: nothing inline, nothing from elsewhere, no requests but for the page's own
scripts, styles and data, which are scripts too since a page opened from a disk may not fetch anything.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import msgspec
from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from wszoo.catalog.detail import NEIGHBOURS
from wszoo.catalog.survey import PORTABLE
from wszoo.report import chart, totals
from wszoo.schema.trust import How
from wszoo.text import human, printable, share
from wszoo.trust.wording import trust_text
from wszoo.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wszoo.catalog.detail import Detail
    from wszoo.catalog.survey import Summary, Survey
    from wszoo.describe import ModelView

POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
FIRST = 50  # models that stand in the page itself: a screenful at once, and what is seen without scripts
SHARD = 1000  # models in a data file
_STATIC = ("icon.svg", "site.css", "theme.js", "page.js", "catalog.js")
_HASH = 16

# What people call the GPUs of a compute capability.
GPU_NAMES = {
    "sm75": "RTX 20, GTX 16, T4",
    "sm80": "A100, A30",
    "sm86": "RTX 30, A10, A40",
    "sm87": "Jetson Orin",
    "sm89": "RTX 40, L4, L40",
    "sm90": "H100, H200",
    "sm100": "B200",
    "sm103": "B300",
    "sm120": "RTX 50",
    "sm121": "DGX Spark",
    PORTABLE: "any machine",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A script or style.

    Attributes:
        path: below the catalog; has a hash of the content in it, so that it may be cached for ever.
        content: its bytes.
    """

    path: str
    content: bytes


@cache
def assets() -> dict[str, Asset]:
    """Scripts and styles by their names."""
    found = {}
    for name in _STATIC:
        content = _resource("static", name)
        stem, _, suffix = name.partition(".")
        found[name] = Asset(f"assets/{stem}-{_short(content)}.{suffix}", content)
    return found


@cache
def edition() -> str:
    """A hash over everything that pages are made with: when it changes, they are all written anew."""
    running = hashlib.sha256(__version__.encode())
    for folder in ("static", "templates"):
        for path in sorted(resources.files(__package__).joinpath(folder).iterdir(), key=lambda path: path.name):
            running.update(path.read_bytes())
    return running.hexdigest()[:_HASH]


def shards(models: Sequence[Summary]) -> dict[str, bytes]:
    """The list as data files: path below the catalog -> content. A path has a hash of the content in it."""
    found = {}
    for start in range(0, len(models), SHARD):
        # JSON is a subset of JavaScript, and in a file of its own nothing in it can end the script.
        content = b"wszooCatalog.add(" + msgspec.json.encode(models[start : start + SHARD]) + b");\n"
        found[f"data/{_short(content)}.js"] = content
    return found


def list_page(survey: Survey, data: Sequence[str]) -> bytes:
    """The page with the list.

    Args:
        survey: the models.
        data: paths of the data files, in order.
    """
    models = [model.summary for model in survey.models]
    distinct = {model.entry.descriptor.digest: model.summary for model in survey.models}.values()
    gpus = {gpu for model in models for gpu in model.gpus}
    return _render(
        "list.html",
        base="catalog/",
        home="",
        models=models[:FIRST],
        count=len(models),
        data=data,
        families=sorted({model.family for model in models if model.family}),
        gpus=[(gpu, GPU_NAMES.get(gpu, "")) for gpu in sorted(gpus, key=_gpu_key)],
        full=sum(model.full for model in distinct),
        stored=sum(model.stored for model in distinct),
        broken=sum(bool(model.problem) for model in models),
        problems=survey.problems,
    )


def model_page(detail: Detail, *, beside: bool) -> bytes:
    """A model's page.

    Args:
        detail: what it shows.
        beside: the pages stand in the store's own folder, so their address is the store's.
    """
    view = detail.view
    # Escaped where it is drawn, as it is for 'wszoo report'.
    drawing = Markup(chart(view, styled=False))  # noqa: S704
    return _render(
        "model.html",
        base="../",
        home="../../index.html",
        detail=detail,
        view=view,
        total=totals(view),
        chart=drawing,
        trust=_trust(view),
        gpu_names=GPU_NAMES,
        facts=_facts(view),
        neighbours_shown=NEIGHBOURS,
        beside=beside,
    )


def broken_page(summary: Summary) -> bytes:
    """The page of a model that cannot be read."""
    return _render("broken.html", base="../", home="../../index.html", model=summary)


def _facts(view: ModelView) -> list[tuple[str, Mapping[str, str]]]:
    return [("Provenance", view.provenance), ("Export options", view.options)]


def _trust(view: ModelView) -> str:
    """Why the model is in the store; a folder of this machine is not named to everybody."""
    if view.trust is not None and view.trust.how == How.FOLDER:
        return "copied from a folder"
    return trust_text(view.trust, view.signatures)


def _gpu_key(gpu: str) -> tuple[int, str]:
    digits = gpu.removeprefix("sm")
    return (int(digits) if digits.isdecimal() else 1 << 30), gpu


def _render(name: str, **values: object) -> bytes:
    text = _templates().get_template(name).render(values)
    return text.encode(errors="replace")


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FunctionLoader(lambda name: _resource("templates", name).decode()),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters.update(human=human, thousands=lambda number: f"{number:,}")
    made.globals.update(
        share=share,
        policy=POLICY,
        version=__version__,
        asset=lambda name: assets()[name].path,
        percent=lambda part, whole: round(100 * part / whole, 2) if whole else 0,
    )
    return made


def _shown(value: Any) -> Any:  # noqa: ANN401 - whatever a template prints
    """What templates print passes through here, before it is escaped; line ends stay."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return "\n".join(map(printable, value.split("\n")))


def _resource(folder: str, name: str) -> bytes:
    return resources.files(__package__).joinpath(folder, name).read_bytes()


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_HASH]
