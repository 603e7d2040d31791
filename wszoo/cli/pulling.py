"""``pull``, ``run`` and ``resolve``: from a name to a model that runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wszoo.cli.common import Session, common_options, gpu_option
from wszoo.cli.output import echo, hint, print_facts, print_json, print_table
from wszoo.text import human, printable, share

if TYPE_CHECKING:
    from wszoo.model import Model
    from wszoo.pull import PullReport, Selection
    from wszoo.resolver import Resolution


@click.command("pull")
@click.argument("ref")
@gpu_option
@click.option("--from", "source", metavar="REMOTE", help="A folder or remote to fetch from; else the local store.")
@click.option("--mirror", "mirrors", multiple=True, metavar="REMOTE", help="Asked when --from fails; repeatable.")
@click.option("--component", "components", multiple=True, help="Only this component; repeatable.")
@click.option("--dry-run", is_flag=True, help="Tell what would be fetched.")
@click.option("--offline", is_flag=True, help="Use what is in the store; never connect.")
@click.option("--no-assemble", is_flag=True, help="Fetch only; put plan and weights together at the first load.")
@common_options
def pull_command(
    session: Session,
    *,
    ref: str,
    gpu: str,
    source: str | None,
    mirrors: tuple[str, ...],
    components: tuple[str, ...],
    dry_run: bool,
    offline: bool,
    no_assemble: bool,
) -> None:
    """Fetch a model and the plans that fit a GPU, verify them, and put them together.

    \b
    Examples:
      wszoo pull digits-cnn --from store/
      wszoo pull digits-cnn --from store/ --gpu sm89
      wszoo pull digits-cnn --from store/ --gpu "RTX 4090" --dry-run
    """
    if mirrors and source is None:
        raise click.UsageError("--mirror goes with --from")
    zoo = session.zoo()
    chosen = components or None
    remote = None if offline else source
    if dry_run and remote is not None:
        report = zoo.plan_pull(ref, gpu=gpu, source=remote, components=chosen, mirrors=mirrors)
        _print_dry_run(report, as_json=session.as_json)
        return
    model = zoo.pull(ref, gpu=gpu, source=remote, components=chosen, offline=offline or dry_run, mirrors=mirrors)
    engines = {} if no_assemble or dry_run else {name: model[name].assemble() for name in model.components}
    if session.as_json:
        print_json(_pulled(model, {name: str(path) for name, path in engines.items() if path}))
        return
    hint(f"{model.ref.tagged} is here: {model.ref.digest}")
    _print_choices(model.resolution)
    for name, path in engines.items():
        if path is not None:
            facts = model[name].facts
            echo(f"{name}: assembled {human(facts.engine_bytes)}, {facts.engine_digest} as built: {path}")


@click.command("resolve")
@click.argument("ref")
@gpu_option
@click.option("--from", "source", metavar="REMOTE", help="A folder or remote; else the local store.")
@click.option("--component", "components", multiple=True, help="Only this component; repeatable.")
@click.option("--explain", is_flag=True, help="Every plan: taken, or the reason why not.")
@common_options
def resolve_command(
    session: Session, *, ref: str, gpu: str, source: str | None, components: tuple[str, ...], explain: bool
) -> None:
    """Tell which plan of each component a GPU would get. Fetches nothing.

    \b
    Examples:
      wszoo resolve digits-cnn --from store/ --gpu sm86 --explain
      wszoo resolve digits-cnn --gpu none --json
    """
    zoo = session.zoo()
    chosen = components or None
    if source is not None:
        selection = zoo.plan_pull(ref, gpu=gpu, source=source, components=chosen).selection
    else:
        selection = zoo.pull(ref, gpu=gpu, components=chosen, offline=True).selection
    if session.as_json:
        print_json(_resolved(selection))
        return
    _print_choices(selection.resolution)
    if explain:
        echo()
        print_table(
            ["component", "target", "plan", "verdict", "reason"],
            [
                [
                    verdict.candidate.facts.component,
                    verdict.candidate.facts.target.name,
                    verdict.candidate.digest.short,
                    "taken" if verdict.taken else "fits" if verdict.accepted else "no",
                    verdict.reason,
                ]
                for verdict in selection.resolution.verdicts
            ],
        )


# Options that wszoo does not know, --help among them once there is a model, are the family's.
@click.command("run", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@gpu_option
@click.option("--from", "source", metavar="REMOTE", help="A folder or remote to fetch from; else the local store.")
@common_options
@click.argument("ref", default="--help")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_command(session: Session, *, ref: str, arguments: tuple[str, ...], gpu: str, source: str | None) -> None:
    """Run a model's own demo; what is not listed here goes to the model's family.

    \b
    Examples:
      wszoo run digits-cnn
      wszoo run digits-cnn --help
    """
    if ref in {"-h", "--help"}:
        echo(click.get_current_context().get_help())
        return
    zoo = session.zoo()
    result = zoo.pull(ref, gpu=gpu, source=source).demo(arguments)
    if session.as_json:
        print_json(dict(result.values))
    else:
        echo(result.text)


def _print_choices(resolution: Resolution) -> None:
    for name, choice in resolution.choices.items():
        facts = choice.candidate.facts
        echo(
            f"{printable(f'{name}: {facts.target.name}')}, "
            f"{human(facts.plan_bytes)} for a plan of {human(facts.engine_bytes)} "
            f"({share(facts.plan_bytes, facts.engine_bytes)}); {printable(choice.reason)}"
        )


def _print_dry_run(report: PullReport, *, as_json: bool) -> None:
    if as_json:
        fetched = [{"digest": each.digest, "size": each.size, "media_type": each.media_type} for each in report.fetched]
        document = {**_resolved(report.selection), "would_fetch": fetched, "would_fetch_bytes": report.fetched_bytes}
        print_json(document)
        return
    _print_choices(report.selection.resolution)
    for each in report.fetched:
        echo(f"{each.digest}  {human(each.size):>8}  {each.media_type}")
    print_facts([("would fetch", f"{human(report.fetched_bytes)} in {len(report.fetched)} blobs")])


def _resolved(selection: Selection) -> dict[str, object]:
    resolution = selection.resolution
    return {
        "ref": selection.ref.tagged,
        "index_digest": selection.index.digest,
        "gpu": str(resolution.gpu) if resolution.gpu else None,
        "components": {
            name: {
                "target": choice.candidate.facts.target.name,
                "kind": choice.candidate.facts.kind,
                "device": choice.device,
                "manifest_digest": choice.candidate.digest,
                "engine_digest": choice.candidate.facts.engine_digest,
                "engine_bytes": choice.candidate.facts.engine_bytes,
                "plan_bytes": choice.candidate.facts.plan_bytes,
                "reason": choice.reason,
            }
            for name, choice in resolution.choices.items()
        },
        "verdicts": [
            {
                "component": verdict.candidate.facts.component,
                "target": verdict.candidate.facts.target.name,
                "manifest_digest": verdict.candidate.digest,
                "accepted": verdict.accepted,
                "taken": verdict.taken,
                "reason": verdict.reason,
            }
            for verdict in resolution.verdicts
        ],
    }


def _pulled(model: Model, engines: dict[str, str]) -> dict[str, object]:
    return {**_resolved(model.selection), "engines": engines}
