"""``pull``, ``run`` and ``resolve``: from a name to a model that runs here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wszoo.cli.common import Session, avoid_option, common_options, complete_refs, gpu_option, keep_option
from wszoo.cli.locking import pull_locked_models
from wszoo.cli.output import echo, echo_piece, hint, print_facts, print_json, print_table, warn_unsigned
from wszoo.names import Ref
from wszoo.text import counted, human, printable, share

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from wszoo.distribution.pull import PullReport, Selection
    from wszoo.model import Model
    from wszoo.resolver import Resolution


@click.command("pull")
@click.argument("ref", required=False, shell_complete=complete_refs)
@gpu_option
@click.option("--locked", metavar="FILE", help="Everything that a lock file names, instead of REF.")
@click.option("--from", "source", metavar="REMOTE", help="A folder or remote to fetch from; else the local store.")
@click.option("--mirror", "mirrors", multiple=True, metavar="REMOTE", help="Asked when --from fails; repeatable.")
@click.option("--component", "components", multiple=True, help="Only this component; repeatable.")
@click.option("--dry-run", is_flag=True, help="Tell what would be fetched.")
@click.option("--offline", is_flag=True, help="Use what is in the store; never connect.")
@click.option("--allow-unsigned", is_flag=True, help="Take it though nobody vouches for it; its plans are native code.")
@click.option("--no-assemble", is_flag=True, help="Fetch only; put plan and weights together at the first load.")
@click.option("--complete", is_flag=True, help="Fetch the plans for other GPUs too, to push or serve it.")
@avoid_option
@keep_option
@common_options
def pull_command(
    session: Session,
    *,
    ref: str | None,
    gpu: str,
    locked: str | None,
    source: str | None,
    mirrors: tuple[str, ...],
    components: tuple[str, ...],
    dry_run: bool,
    offline: bool,
    allow_unsigned: bool,
    no_assemble: bool,
    complete: bool,
    avoid: tuple[str, ...],
    keep: str,
) -> None:
    """Fetch a model and the plans that fit a GPU, verify them, and put them together.

    \b
    Examples:
      wszoo pull digits-cnn --from store/
      wszoo pull digits-cnn --from store/ --gpu sm89
      wszoo pull digits-cnn --from store/ --gpu "RTX 4090" --dry-run
      wszoo pull digits-cnn --from store/ --complete
      wszoo pull --locked wszoo.lock
    """
    if locked is not None:
        if ref or mirrors or components or dry_run or allow_unsigned or complete:
            raise click.UsageError("--locked goes with --gpu, --from, --offline and --no-assemble alone")
        models = pull_locked_models(session, locked, gpu=gpu, source=source, offline=offline)
        _finish_pull(session, models, assemble=not no_assemble)
        return
    if ref is None:
        raise click.UsageError("name a model, or give --locked FILE")
    if mirrors and source is None:
        raise click.UsageError("--mirror goes with --from")
    if complete and (offline or dry_run):
        raise click.UsageError("--complete fetches: it goes neither with --offline nor with --dry-run")
    zoo = session.zoo()
    if complete and zoo.store.refs.find(Ref.parse(ref)) is not None:
        _complete(session, ref, source, mirrors)
        return
    chosen = components or None
    remote = None if offline else source
    if dry_run and remote is not None:
        report = zoo.plan_pull(
            ref,
            gpu=gpu,
            source=remote,
            components=chosen,
            mirrors=mirrors,
            allow_unsigned=allow_unsigned,
            avoid=avoid,
            keep=keep,
        )
        warn_unsigned(report.trust)
        _print_dry_run(report, as_json=session.as_json)
        return
    model = zoo.pull(
        ref,
        gpu=gpu,
        source=remote,
        components=chosen,
        offline=offline or dry_run,
        mirrors=mirrors,
        allow_unsigned=allow_unsigned,
        avoid=avoid,
        keep=keep,
    )
    warn_unsigned(model.trust)
    if complete:
        zoo.complete(ref, source=source, mirrors=mirrors)
    if session.as_json:
        print_json(_pulled(model, assemble=not (no_assemble or dry_run)))
    else:
        _print_pulled(model, assemble=not (no_assemble or dry_run))


def _complete(session: Session, ref: str, source: str | None, mirrors: Sequence[str]) -> None:
    """Bring the rest of a model that is here already, whatever GPU this machine has."""
    fetched = session.zoo().complete(ref, source=source, mirrors=mirrors)
    size = sum(each.size for each in fetched)
    if session.as_json:
        listed = [{"digest": each.digest, "size": each.size, "media_type": each.media_type} for each in fetched]
        print_json({"ref": Ref.parse(ref).tagged, "fetched": listed, "fetched_bytes": size})
    else:
        echo(f"{Ref.parse(ref).tagged} is here as a whole; fetched {human(size)} in {counted(len(fetched), 'blob')}")


@click.command("resolve")
@click.argument("ref", shell_complete=complete_refs)
@gpu_option
@click.option("--from", "source", metavar="REMOTE", help="A folder or remote; else the local store.")
@click.option("--component", "components", multiple=True, help="Only this component; repeatable.")
@click.option("--explain", is_flag=True, help="Every plan: taken, or the reason why not.")
@avoid_option
@common_options
def resolve_command(
    session: Session,
    *,
    ref: str,
    gpu: str,
    source: str | None,
    components: tuple[str, ...],
    explain: bool,
    avoid: tuple[str, ...],
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
        selection = zoo.plan_pull(ref, gpu=gpu, source=source, components=chosen, avoid=avoid).selection
    else:
        selection = zoo.pull(ref, gpu=gpu, components=chosen, offline=True, avoid=avoid).selection
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
@avoid_option
@keep_option
@common_options
@click.argument("ref", default="--help", shell_complete=complete_refs)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_command(
    session: Session,
    *,
    ref: str,
    arguments: tuple[str, ...],
    gpu: str,
    source: str | None,
    avoid: tuple[str, ...],
    keep: str,
) -> None:
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
    result = zoo.pull(ref, gpu=gpu, source=source, avoid=avoid, keep=keep).demo(arguments)
    for piece in result.pieces:
        if not session.as_json:
            echo_piece(piece)
    if session.as_json:
        print_json(dict(result.values))
    elif result.text:
        echo(result.text)


def _finish_pull(session: Session, models: list[Model], *, assemble: bool) -> None:
    if session.as_json:
        print_json({"models": [_pulled(model, assemble=assemble) for model in models]})
        return
    for model in models:
        _print_pulled(model, assemble=assemble)


def _print_pulled(model: Model, *, assemble: bool) -> None:
    engines = _engines(model, assemble=assemble)
    hint(f"{model.ref.tagged} is here: {model.ref.digest}")
    _print_choices(model.resolution)
    for name, path in engines.items():
        facts = model[name].facts
        echo(f"{name}: assembled {human(facts.engine_bytes)}, tree digest {facts.kept_as} as built: {path}")


def _engines(model: Model, *, assemble: bool) -> dict[str, Path]:
    """The full plan's file of each component that has one."""
    found = {name: model[name].assemble() for name in model.components} if assemble else {}
    return {name: path for name, path in found.items() if path is not None}


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
        partly = [
            {"digest": each.pack.digest, "size": each.pack.size, "ranges": each.ranges, "bytes": each.size}
            for each in report.partly
        ]
        wanted = {"would_fetch": fetched, "would_fetch_partly": partly, "would_fetch_bytes": report.fetched_bytes}
        print_json({**_resolved(report.selection), **wanted})
        return
    _print_choices(report.selection.resolution)
    for each in report.fetched:
        echo(f"{each.digest}  {human(each.size):>8}  {printable(each.media_type)}")
    for part in report.partly:
        ranges = f"{part.ranges} ranges of {human(part.pack.size)}, {printable(part.pack.media_type)}"
        echo(f"{part.pack.digest}  {human(part.size):>8}  {ranges}")
    also = f" and parts of {len(report.partly)}" if report.partly else ""
    print_facts([("would fetch", f"{human(report.fetched_bytes)} in {len(report.fetched)} blobs{also}")])


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


def _pulled(model: Model, *, assemble: bool) -> dict[str, object]:
    engines = {name: str(path) for name, path in _engines(model, assemble=assemble).items()}
    return {**_resolved(model.selection), "engines": engines, "trust": model.trust}
