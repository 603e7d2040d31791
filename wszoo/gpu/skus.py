"""Finds a GPU product by the name that a person types."""

from __future__ import annotations

import difflib
import re
from dataclasses import replace
from functools import cache
from typing import NoReturn

from wszoo.errors import UsageError
from wszoo.gpu.machine import Gpu, product_key
from wszoo.gpu.sku_table import ALIASES, BY_COMPUTE_CAPABILITY
from wszoo.names import sm_name

_GIB = 1 << 30
_SHOWN = 8
_CUTOFF = 0.7  # "RTX 4099" still finds the 40 series; "banana" finds nothing

# Words that may be left out: no two products differ by them alone. "Quadro" is not one, since RTX 6000 names three
# products, nor are "Ada" and "PRO", which tell those apart.
_OPTIONAL = frozenset(
    {"nvidia", "geforce", "tesla", "rtx", "gpu", "generation", "edition", "blackwell", "with", "design"}
)
_SEAMS = re.compile(r"(?<=rtx)(?=\d)|(?<=\d)(?=ti|super|laptop)|(?<=ti)(?=super)|(?<=\d)\s+(?=gi?b\b)")
_WORD = re.compile(r"[a-z0-9]+")
_MEMORY = re.compile(r"(\d+)gb")
_OTHERWISE = "give the compute capability instead, as in 'sm89'; 'nvidia-smi --query-gpu=compute_cap' shows it"


def find_sku(text: str) -> Gpu:
    """The product that ``text`` names: ``RTX 4090``, ``4090``, ``nvidia geforce rtx4090``, ``A100 SXM 80GB``.

    Raises:
        UsageError: no product or several have that name; the hint lists what comes near.
    """
    products = _products()
    exact = _by_key().get(product_key(text))
    if exact is not None:
        return products[exact]
    asked = _words(text)
    same, wider = _matches(asked)
    for names in (same, wider):
        if len(names) == 1:
            return products[names[0]]
    if wider:
        raise UsageError(f"{text!r} is the name of several GPUs", hint=_list("say which", same or wider))
    return _by_memory(asked) or _unknown(text)


def all_skus() -> tuple[Gpu, ...]:
    """Every product in the table, by compute capability."""
    return tuple(_products().values())


@cache
def _products() -> dict[str, Gpu]:
    return {
        name: Gpu(
            name=name,
            compute_capability=capability,
            memory_bytes=memory * _GIB if memory else None,
            multiprocessors=multiprocessors,
        )
        for capability, rows in BY_COMPUTE_CAPABILITY.items()
        for name, multiprocessors, memory in rows
    }


@cache
def _by_key() -> dict[str, str]:
    """Product names by their loosest exact spelling."""
    return {product_key(name): name for name in _products()} | {product_key(k): name for k, name in ALIASES.items()}


@cache
def _words(text: str) -> frozenset[str]:
    """``rtx4070ti super 16 gb`` -> rtx, 4070, ti, super, 16gb."""
    pieces = _SEAMS.sub(lambda seam: "" if seam[0] else " ", text.lower())
    return frozenset(word.replace("gib", "gb").replace("sxm4", "sxm") for word in _WORD.findall(pieces))


def _matches(asked: frozenset[str]) -> tuple[list[str], list[str]]:
    """The products that these words name but for optional ones, and all that have these words."""
    wider = [name for name in _products() if asked and asked <= _words(name)]
    return [name for name in wider if _words(name) - asked <= _OPTIONAL], wider


def _by_memory(asked: frozenset[str]) -> Gpu | None:
    """``RTX 3080 12GB``: one name that covers several memory sizes, and the size that is meant."""
    sizes = {word: int(match[1]) for word in asked if (match := _MEMORY.fullmatch(word))}
    same, _ = _matches(asked - sizes.keys())
    if len(sizes) != 1 or len(same) != 1 or _products()[same[0]].memory_bytes is not None:
        return None
    return replace(_products()[same[0]], memory_bytes=max(sizes.values()) * _GIB)


def _unknown(text: str) -> NoReturn:
    bare = {key.removeprefix("geforce"): name for key, name in _by_key().items()}
    asked = product_key(text).removeprefix("geforce")
    near = [bare[key] for key in difflib.get_close_matches(asked, bare, n=_SHOWN, cutoff=_CUTOFF)]
    hint = _list("did you mean", list(dict.fromkeys(near))) if near else _OTHERWISE
    raise UsageError(f"no known GPU is called {text!r}", hint=hint)


def _list(lead: str, names: list[str]) -> str:
    products = _products()
    shown = ", ".join(f"{name} ({sm_name(products[name].compute_capability)})" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{lead}: {shown}{more}; or {_OTHERWISE}"
