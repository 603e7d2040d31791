"""``export``: a model for another runtime."""

from __future__ import annotations

from pathlib import Path

import click

from wszoo.cli.common import GPU_HELP, Session, common_options, complete_refs
from wszoo.cli.output import hint, print_facts, print_json, print_table
from wszoo.export import FORMATS, Options
from wszoo.export.epcontext import PROVIDERS
from wszoo.text import human

_FORMATS = ", ".join(f"{name}: {each.summary}" for name, each in FORMATS.items())


@click.command("export")
@click.argument("ref", shell_complete=complete_refs)
@click.option("--format", "to", required=True, type=click.Choice(list(FORMATS)), help=f"{_FORMATS}.")
@click.option("-o", "--out", required=True, metavar="DIR", help="The folder to write; new or empty.")
@click.option("--component", "components", multiple=True, help="Only this component; repeatable.")
@click.option("--gpu", metavar="GPU", help=f"Take the plans that fit it: {GPU_HELP}")
@click.option(
    "--target", "targets", multiple=True, metavar="TARGET[,TARGET]", help="Take these plans: rtx-sm89, portable, ..."
)
@click.option("--force", is_flag=True, help="Replace what a former export wrote there.")
@click.option("--inline", is_flag=True, help="onnx: weights inside the file, up to 2 GiB.")
@click.option(
    "--ep",
    type=click.Choice([provider.option for provider in PROVIDERS]),
    help="ort-epcontext, ortpackage: the execution provider; else the one for the plan's backend.",
)
@click.option(
    "--max-batch", default=0, type=click.IntRange(0), metavar="N", help="triton: batch requests up to N; else off."
)
@common_options
def export_command(
    session: Session,
    *,
    ref: str,
    to: str,
    out: str,
    components: tuple[str, ...],
    gpu: str | None,
    targets: tuple[str, ...],
    force: bool,
    inline: bool,
    ep: str | None,
    max_batch: int,
) -> None:
    """Write a model that is in the store as files for another runtime.

    Without --gpu and --target, onnx takes no plan, ortpackage all that are in the store, and the others those that fit
    this machine's GPU. The folder appears whole or not at all.

    \b
    Examples:
      wszoo export digits-cnn --format onnx -o out/
      wszoo export digits-cnn --format ort-epcontext --gpu "RTX 4090" -o out/
      wszoo export digits-cnn --format triton --target rtx-sm86,rtx-sm89 -o models/
    """
    exported = session.zoo().export(
        ref,
        out,
        to=to,
        gpu=gpu,
        targets=[target for given in targets for target in given.split(",") if target],
        components=components or None,
        options=Options(inline=inline, ep=ep or "", max_batch=max_batch),
        force=force,
    )
    for note in exported.card.notes:
        hint(f"note: {note}")
    if session.as_json:
        print_json({"path": str(Path(out).resolve()), "bytes": exported.size, **_facts(exported.card)})
        return
    print_table(["size", "file"], [[human(file.size), name] for name, file in exported.card.files.items()])
    print_facts([("wrote", f"{human(exported.size)} to {exported.path}")])


def _facts(card: object) -> dict[str, object]:
    from wszoo.schema.decode import to_builtins

    facts: dict[str, object] = to_builtins(card)
    return facts
