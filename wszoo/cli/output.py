"""What verbs print: tables and facts for people, one JSON document for programs, errors on stderr."""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import TYPE_CHECKING

import click

from wszoo.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from wszoo.errors import WszooError
    from wszoo.schema.trust import Decision


def echo(text: str = "", *, err: bool = False) -> None:
    """Print text that wszoo composed: stripped of colours for ``NO_COLOR``, and where nobody watches."""
    click.echo(text, err=err, color=False if os.environ.get("NO_COLOR") else None)


def echo_piece(text: str) -> None:
    """Print a piece of a line at once; lines and tabs are kept, whatever else could steer a terminal is not."""
    kept = "".join(char if char in "\n\t" else printable(char) for char in text)
    click.echo(kept, nl=False)
    sys.stdout.flush()


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    from wszoo.schema.decode import to_builtins

    echo(json.dumps(to_builtins(value), indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns on stdout: text to the left, what looks like a number to the right."""
    table = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(headings))]
    numeric = [all(_is_number(row[column]) for row in table[1:]) for column in range(len(headings))]
    for number, row in enumerate(table):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        line = "  ".join(cells).rstrip()
        echo(click.style(line, bold=True) if number == 0 else line)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """``name  value`` lines on stdout; empty values are left out."""
    shown = [(name, value) for name, value in facts if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        echo(f"{name.ljust(width)}  {printable(value)}")


def hint(text: str) -> None:
    """A line for people on stderr."""
    echo(printable(text), err=True)


def warn_unsigned(decision: Decision | None) -> None:
    """Say on stderr, whatever is quiet, that nobody vouches for a model."""
    if decision is not None and decision.how == "unsigned":
        label = click.style("WARNING:", fg="red", bold=True)
        echo(
            f"{label} {printable(decision.ref)} from {printable(decision.remote)} is UNSIGNED: nobody vouches for it, "
            "and its plans are native code that will run as you",
            err=True,
        )


def print_error(error: WszooError, *, as_json: bool, debug: bool) -> None:
    """An error on stderr; with ``--json`` also as the one document on stdout."""
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if as_json:
        facts = {
            "type": type(error).__name__,
            "message": error.message,
            "hint": error.hint,
            "exit_code": error.exit_code,
        }
        echo(json.dumps({"error": facts}, indent=2, ensure_ascii=False))
    echo(f"{click.style('error:', fg='red', bold=True)} {_lines(error.message)}", err=True)
    if error.hint:
        echo(f"{click.style(' hint:', fg='cyan')} {_lines(error.hint)}", err=True)


def _lines(text: str) -> str:
    """Messages may have several lines, and name things from outside."""
    return "\n".join(printable(line) for line in text.split("\n"))


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell == "-"
