"""``list``, ``show``, ``diff`` and ``report``: what stands in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wszoo.cli.common import Session, common_options, complete_refs
from wszoo.cli.output import echo, hint, print_facts, print_json, print_table
from wszoo.text import counted, human, printable, share
from wszoo.trust.wording import trust_text, trust_word

if TYPE_CHECKING:
    from wszoo.describe import DiffView, ModelView, SharingView
    from wszoo.schema.model import Value
    from wszoo.store.store import Store


@click.command("list")
@common_options
def list_command(session: Session) -> None:
    """List the models in the store.

    \b
    Example:
      wszoo list --json
    """
    from wszoo.describe import list_refs

    zoo = session.zoo()
    views, damage = list_refs(zoo.store)
    for error in damage:
        hint(f"warning: {error.message}; see 'wszoo verify'")
    if session.as_json:
        print_json(views)
    elif not views:
        hint(f"nothing in {zoo.store.layout.root} yet: 'wszoo pull REF --from REMOTE' or 'wszoo build' fill it")
    else:
        print_table(
            ["model", "family", "components", "plans here", "weights", "on disk", "taken on"],
            [
                [
                    view.ref,
                    view.family,
                    ", ".join(view.components),
                    ", ".join(view.targets),
                    human(view.weight_bytes),
                    human(view.stored_bytes),
                    trust_word(view.trust),
                ]
                for view in views
            ],
        )


@click.command("show")
@click.argument("ref", shell_complete=complete_refs)
@click.option("--asset", metavar="NAME", help="Print one of the files that travel with the model.")
@click.option("--failures", is_flag=True, help="Print why builds of it failed, with the end of the builder's log.")
@common_options
def show_command(session: Session, *, ref: str, asset: str | None, failures: bool) -> None:
    """Show a model: its components, and for every plan the full engine, what is shipped, and what is shared.

    \b
    Examples:
      wszoo show digits-cnn
      wszoo show digits-cnn --asset card.md
      wszoo show digits-cnn --failures
      wszoo show digits-cnn --json
    """
    from wszoo.describe import show
    from wszoo.names import Ref

    zoo = session.zoo()
    if failures:
        _print_failures(session, zoo.store, Ref.parse(ref).tagged)
        return
    view = show(zoo.store, Ref.parse(ref))
    if asset is not None:
        _print_asset(session, asset, zoo.asset(ref, asset))
    elif session.as_json:
        print_json(view)
    else:
        print_model(view)


def _print_failures(session: Session, store: Store, model: str) -> None:
    from wszoo.store.failures import failures_of

    found = failures_of(store, model)
    if session.as_json:
        print_json(found)
        return
    for each in found:
        where = f" on {printable(each.where)}" if each.where else ""
        echo(f"{printable(each.component)} for {printable(each.target)}{where}: {printable(each.message)}")
        for line in [*each.hint.splitlines(), *each.log.splitlines()]:
            echo(f"  {printable(line)}")
    if not found:
        hint(f"no build of {model} is known to have failed")


@click.command("report")
@click.argument("ref", shell_complete=complete_refs)
@click.option("-o", "--output", required=True, metavar="FILE.html|FILE.svg", help="Where to write it.")
@common_options
def report_command(session: Session, *, ref: str, output: str) -> None:
    """Write a model's sizes as a self-contained page or picture: full engines against what is shipped.

    \b
    Example:
      wszoo report digits-cnn -o report.html
    """
    from pathlib import Path

    from wszoo.describe import show
    from wszoo.errors import UsageError
    from wszoo.names import Ref
    from wszoo.report import chart, page, totals
    from wszoo.store.files import storage_errors

    writers = {".html": page, ".svg": chart}
    path = Path(output)
    if path.suffix not in writers:
        raise UsageError(f"cannot write a report as {path.name!r}", hint="name a file that ends in .html or .svg")
    view = show(session.zoo().store, Ref.parse(ref))
    with storage_errors("write"):
        path.write_text(writers[path.suffix](view), encoding="utf-8")
    total = totals(view)
    if session.as_json:
        print_json({"path": str(path), "full_bytes": total.full, "stored_bytes": total.stored})
    else:
        hint(f"wrote {path}: {human(total.full)} of full engines, {human(total.stored)} stored")


@click.command("diff")
@click.argument("first", shell_complete=complete_refs)
@click.argument("second", shell_complete=complete_refs)
@common_options
def diff_command(session: Session, *, first: str, second: str) -> None:
    """Show what two models share: tensors by content, plans by their full bytes.

    \b
    Example:
      wszoo diff resnet:1.0 resnet:1.1
    """
    from wszoo.describe import diff
    from wszoo.names import Ref

    zoo = session.zoo()
    view = diff(zoo.store, Ref.parse(first), Ref.parse(second))
    if session.as_json:
        print_json(view)
    else:
        _print_diff(view)


def _print_asset(session: Session, name: str, data: bytes) -> None:
    if session.as_json:
        from base64 import b64encode

        print_json({"name": name, "size": len(data), "base64": b64encode(data).decode()})
    else:
        click.echo(data, nl=False)


def _weights(view: ModelView) -> str:
    let_go = "; here assembled plans may stand in for them" if view.keeps_engines else ""
    return f"{human(view.weight_bytes)}, stored as {human(view.weight_stored_bytes)}{let_go}"


def print_model(view: ModelView) -> None:
    """A model as a person wants to see it."""
    print_facts(
        [
            ("model", f"{view.ref}  ({view.family})"),
            ("index", view.index_digest),
            ("trust", trust_text(view.trust, view.signatures)),
            ("licence", view.licence),
            ("weights", _weights(view)),
            ("assets", ", ".join(view.assets)),
            *((f"  {name}", value) for name, value in view.options.items()),
        ]
    )
    for component in view.components:
        echo()
        echo(
            click.style(printable(component.name), bold=True)
            + f"  {counted(component.tensors, 'tensor')}, {human(component.weight_bytes)}"
        )
        for arrow, values in (("in", component.inputs), ("out", component.outputs)):
            for value in values:
                echo(f"  {arrow:<4}{_value(value)}")
    _print_plans(view)
    _print_saving(view)


def _print_plans(view: ModelView) -> None:
    from wszoo.report import reading_order, target_names

    plans = reading_order(view)
    echo()
    print_table(
        ["component", "target", "built with", "full engine", "shipped", "of full", "shared", "here"],
        [
            [
                plan.component,
                target,
                f"{plan.backend} {plan.version}".strip(),
                human(plan.engine_bytes),
                human(plan.plan_bytes),
                share(plan.plan_bytes, plan.engine_bytes),
                human(plan.shared_bytes) if plan.shared_bytes else "-",
                "yes" if plan.held else "no",
            ]
            for plan, target in zip(plans, target_names(plans), strict=True)
        ],
    )


def _print_saving(view: ModelView) -> None:
    from wszoo.report import totals

    total = totals(view)
    echo()
    echo(
        f"{counted(len(view.plans), 'full engine')}: {human(total.full)}.  Weights once and "
        f"{counted(len(view.plans), 'plan')}: {human(total.stored)} ({share(total.stored, total.full)})."
    )


def _value(value: Value) -> str:
    return printable(f"{value.name}: {value.dtype}[{', '.join(map(str, value.shape))}]")


def _print_diff(view: DiffView) -> None:
    echo(f"first   {view.first}\nsecond  {view.second}\n")
    if view.same_model:
        echo("The two are one model: the same graphs and weights.")
    print_table(
        ["component", "shared", "only first", "only second", "tensors changed"],
        [_sharing_row(part, part.name) for part in view.components] + [_sharing_row(view.total, "together")],
    )
    for title, plans in (("only first", view.plans_only_first), ("only second", view.plans_only_second)):
        for plan in plans:
            echo(f"plan {title}: {printable(plan)}")


def _sharing_row(part: SharingView, name: str) -> list[str]:
    sizes = (part.shared_bytes, part.only_first_bytes, part.only_second_bytes)
    return [name, *map(human, sizes), str(len(part.changed))]
