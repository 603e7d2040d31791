"""A model's sizes as a picture and a page: full engines against what is shipped, without the store and with it.

Both are self-contained: no scripts, no fonts or images from elsewhere. Every name in them is escaped, since names come
from whoever published the model.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wszoo.text import human, printable, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wszoo.describe import ModelView, PlanView

_WIDTH = 720  # of the chart, in user units
_LABELS = 210
_LETTERS = 32  # that fit there
_NUMBERS = 110
_ROW = 30
_BAR = 18
_TOP = 34

_STYLE = """
svg{--ink:#1b1f24;--soft:#667080;--full:#b4bcc8;--ours:#0b7a5b;font:13px system-ui,sans-serif}
@media(prefers-color-scheme:dark){svg{--ink:#e8ebef;--soft:#9aa4b2;--full:#4a5361;--ours:#3ecf9f}}
text{fill:var(--ink)}.soft{fill:var(--soft)}.full{fill:var(--full)}.ours{fill:var(--ours)}.title{font-weight:600}
"""
_PAGE_STYLE = """
:root{color-scheme:light dark;--line:#d7dce3}
@media(prefers-color-scheme:dark){:root{--line:#39414d}}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
svg{width:100%;height:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:.3rem .6rem;border-bottom:1px solid var(--line)}
th:nth-child(-n+2),td:nth-child(-n+2){text-align:left}code{overflow-wrap:anywhere}
"""


@dataclass(frozen=True, slots=True)
class Totals:
    """What a model takes in all, in bytes.

    Attributes:
        full: every engine with its own copy of the weights.
        weights: the weights once, as they are stored.
        plans: every distinct layer of every plan.
    """

    full: int
    weights: int
    plans: int

    @property
    def stored(self) -> int:
        """Weights and plans together."""
        return self.weights + self.plans


def reading_order(view: ModelView) -> list[PlanView]:
    """The plans as people read them: networks as the model lists them, sm75 before sm120, the portable one last."""
    places = {component.name: place for place, component in enumerate(view.components)}

    def key(plan: PlanView) -> tuple[object, ...]:
        numbers = tuple(int(digits) for digits in re.findall(r"[0-9]{1,9}", plan.target))
        place = places.get(plan.component, len(places))
        return place, plan.component, plan.kind == "portable", numbers, plan.target, plan.profiles

    return sorted(view.plans, key=key)


def target_names(plans: Iterable[PlanView]) -> list[str]:
    """What to call each plan's target: with its profiles where one network has several plans for it."""
    every = list(plans)
    seen = Counter((plan.component, plan.target) for plan in every)
    return [
        f"{plan.target} ({', '.join(plan.profiles)})" if seen[plan.component, plan.target] > 1 else plan.target
        for plan in every
    ]


@dataclass(frozen=True, slots=True)
class _Bar:
    label: str
    note: str
    nbytes: int
    style: str


def totals(view: ModelView) -> Totals:
    """Add up a model; layers that plans share count once."""
    layers = {plan.plan_digest: plan.plan_bytes - plan.shared_bytes for plan in view.plans}
    layers |= {plan.shared_digest: plan.shared_bytes for plan in view.plans if plan.shared_digest}
    return Totals(
        full=sum(plan.engine_bytes for plan in view.plans),
        weights=view.weight_stored_bytes,
        plans=sum(layers.values()),
    )


def chart(view: ModelView, *, styled: bool = True) -> str:
    """The sizes as an SVG image, drawn to one linear scale.

    Args:
        view: the model.
        styled: carry the style; without it, that is up to the page which the image is in.
    """
    total = totals(view)
    count = len(view.plans)
    bars = [
        _Bar(f"{count} full engines", "", total.full, "full"),
        _Bar(f"weights once, {count} plans", share(total.stored, total.full), total.stored, "ours"),
        _Bar("the plans alone", share(total.plans, total.full), total.plans, "ours"),
        *_target_bars(reading_order(view)),
    ]
    widest = max((bar.nbytes for bar in bars), default=1) or 1
    height = _TOP + _ROW * len(bars) + 8
    rows = "".join(_row(bar, number, widest) for number, bar in enumerate(bars))
    title = _escape(f"{view.ref}: full engines and what wszoo ships")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{title}">'
        f"<title>{title}</title>{f'<style>{_STYLE}</style>' if styled else ''}"
        f'<text x="0" y="18" class="title">{title}</text>{rows}</svg>\n'
    )


def page(view: ModelView) -> str:
    """The chart, and a table of every plan, as an HTML page."""
    total = totals(view)
    facts = (
        f"{human(view.weight_bytes)} of weights, stored once as {human(view.weight_stored_bytes)}. "
        f"{len(view.plans)} full engines would take {human(total.full)}; with the weights once and every plan "
        f"stripped it is {human(total.stored)} ({share(total.stored, total.full)})."
    )
    headings = ("component", "target", "full engine", "shipped", "of full", "shared with others")
    head = "".join(f'<th scope="col">{heading}</th>' for heading in headings)
    plans = reading_order(view)
    rows = zip(plans, target_names(plans), strict=True)
    body = "".join(f"<tr>{_cells(plan, target)}</tr>" for plan, target in rows)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{_escape(view.ref)}</title><style>{_PAGE_STYLE}</style></head><body>\n"
        f"<h1>{_escape(view.ref)}</h1>\n<p>{_escape(facts)}</p>\n{chart(view)}"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>\n"
        f"<p>Index <code>{_escape(view.index_digest)}</code></p>\n</body></html>\n"
    )


def _target_bars(plans: Sequence[PlanView]) -> Iterable[_Bar]:
    """For each target with stripped plans: its full engines, and what a client downloads beside the weights."""
    for target in dict.fromkeys(plan.target for plan in plans if plan.kind != "portable"):
        mine = [plan for plan in plans if plan.target == target]
        full, shipped = (sum(sizes) for sizes in zip(*((p.engine_bytes, p.plan_bytes) for p in mine), strict=True))
        yield _Bar(f"{target}, full", "", full, "full")
        yield _Bar(f"{target}, shipped", share(shipped, full), shipped, "ours")


def _row(bar: _Bar, number: int, widest: int) -> str:
    top = _TOP + number * _ROW
    width = max((_WIDTH - _LABELS - _NUMBERS) * bar.nbytes / widest, 1.5)  # a hair, so that kilobytes can be seen
    note = f' <tspan class="soft">{_escape(bar.note)}</tspan>' if bar.note else ""
    return (
        f'<text x="0" y="{top + 14}">{_escape(_fitted(bar.label))}</text>'
        f'<rect x="{_LABELS}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="2" class="{bar.style}"/>'
        f'<text x="{_LABELS + width + 8:.1f}" y="{top + 14}">{human(bar.nbytes)}{note}</text>'
    )


def _fitted(label: str) -> str:
    return label if len(label) <= _LETTERS else f"{label[: _LETTERS - 1]}…"


def _cells(plan: PlanView, target: str) -> str:
    shared = human(plan.shared_bytes) if plan.shared_bytes else "-"
    sizes = (human(plan.engine_bytes), human(plan.plan_bytes), share(plan.plan_bytes, plan.engine_bytes), shared)
    return "".join(f"<td>{_escape(cell)}</td>" for cell in (plan.component, target, *sizes))


def _escape(text: str) -> str:
    """Text from outside for a page: no markup, and nothing that turns writing around."""
    return html.escape(printable(text))
