"""``lock`` and ``bundle``: what an app ships instead of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wszoo.cli.common import Session, common_options
from wszoo.cli.output import echo, hint, print_json, print_table
from wszoo.text import human

if TYPE_CHECKING:
    from wszoo.model import Model
    from wszoo.schema.lock import Lock


@click.command("lock")
@click.argument("refs", nargs=-1)
@click.option("--gpu", "gpus", multiple=True, metavar="GPU[,GPU]", help="For which GPUs: sm75,sm89, 'RTX 4090', none.")
@click.option("-o", "--output", default="wszoo.lock", show_default=True, metavar="FILE", help="The lock file.")
@click.option("--from", "source", metavar="REMOTE", help="A folder or remote to lock from; else the local store.")
@click.option("--remote", "remotes", multiple=True, metavar="URL", help="Where apps will find it; else --from.")
@click.option("--check", is_flag=True, help="Change nothing; exit with 5 if the lock is stale. For CI.")
@click.option("--upgrade", is_flag=True, help="Pin what the tags of the lock point to now.")
@click.option("--allow-unsigned", is_flag=True, help="Lock it though nobody vouches for it; its plans are native code.")
@common_options
def lock_command(
    session: Session,
    *,
    refs: tuple[str, ...],
    gpus: tuple[str, ...],
    output: str,
    source: str | None,
    remotes: tuple[str, ...],
    check: bool,
    upgrade: bool,
    allow_unsigned: bool,
) -> None:
    """Pin models for some GPUs: index, plans and weights, every byte by its sha256.

    An app ships the lock file and nothing else. What it names is taken from anywhere, without a signature: who checked
    it in has vouched for it. So a remote must be trusted when it is locked, as for 'wszoo pull'.

    \b
    Examples:
      wszoo lock sdxl:1.0 --gpu sm75,sm89,sm120 -o wszoo.lock --from https://zoo.example/models
      wszoo lock --check
      wszoo lock --upgrade
    """
    from wszoo.lock.document import read_lock, write_lock
    from wszoo.lock.updating import LockRequest, make_lock, stale, upgraded

    _check_usage(refs, check=check, upgrade=upgrade)
    zoo, path = session.zoo(), Path(output)
    wanted = tuple(name.strip() for each in gpus for name in each.split(",") if name.strip())
    request = LockRequest(gpus=wanted, source=source, remotes=remotes, allow_unsigned=allow_unsigned)
    before = read_lock(path) if check or upgrade else None
    if before is None:
        lock = make_lock(zoo, refs, request)
    else:
        lock = upgraded(zoo, before, source=source, allow_unsigned=allow_unsigned)
    changes = stale(before, lock) if before else []
    if check:
        _finish_check(session, path, changes)
        return
    write_lock(path, lock)
    _print_lock(session, path, lock, changes)


@click.command("bundle")
@click.argument("file", default="wszoo.lock")
@click.option("-o", "--output", required=True, metavar="DIR", help="A folder that does not exist yet.")
@click.option("--from", "source", metavar="REMOTE", help="Asked after the store, before the lock's own remotes.")
@click.option("--without-weights", is_flag=True, help="Leave the weights to the first start.")
@common_options
def bundle_command(session: Session, *, file: str, output: str, source: str | None, without_weights: bool) -> None:
    """Write what a lock file names into an OCI image layout, and nothing else, for an installer.

    \b
    Examples:
      wszoo bundle wszoo.lock -o dist/models
      wszoo bundle wszoo.lock -o dist/models --without-weights
      wszoo pull --locked dist/models/wszoo.lock --from dist/models
    """
    from wszoo.lock.document import read_lock
    from wszoo.lock.updating import bundle_lock

    report = bundle_lock(session.zoo(), read_lock(Path(file)), output, source=source, weights=not without_weights)
    if session.as_json:
        print_json({"path": output, "blobs": report.blobs, "bytes": report.size, "left_out_bytes": report.left_out})
        return
    later = f"; {human(report.left_out)} of weights come at the first start" if report.left_out else ""
    hint(f"{output} has {report.blobs} blobs, {human(report.size)}{later}")


def pull_locked_models(session: Session, file: str, *, gpu: str, source: str | None, offline: bool) -> list[Model]:
    """What ``wszoo pull --locked`` fetches."""
    from wszoo.lock.app import LockedModels
    from wszoo.lock.document import read_lock

    return LockedModels(read_lock(Path(file)), session.zoo(), source).pull(gpu=gpu, offline=offline)


def _check_usage(refs: tuple[str, ...], *, check: bool, upgrade: bool) -> None:
    if check and upgrade:
        raise click.UsageError("--check changes nothing, --upgrade does: give one of them")
    if (check or upgrade) == bool(refs):
        raise click.UsageError("name models to lock, or give --check or --upgrade for those of the lock file")


def _finish_check(session: Session, path: Path, changes: list[str]) -> None:
    from wszoo.errors import IncompatibleError

    if changes:
        raise IncompatibleError(
            f"{path} is stale:\n" + "\n".join(changes), hint="look at what is new, then run 'wszoo lock --upgrade'"
        )
    if session.as_json:
        print_json({"path": str(path), "stale": []})
    else:
        hint(f"{path} is up to date")


def _print_lock(session: Session, path: Path, lock: Lock, changes: list[str]) -> None:
    if session.as_json:
        print_json({"path": str(path), "changes": changes, "lock": lock})
        return
    for change in changes:
        echo(change)
    rows = [
        [model.ref.tagged, plan.component, plan.target, ", ".join(plan.gpus), human(sum(b.size for b in plan.layers))]
        for model in lock.models
        for plan in model.plans
    ]
    print_table(["model", "component", "target", "for", "shipped"], rows)
    blobs = {digest: size for model in lock.models for digest, size in model.blobs().items()}
    hint(f"wrote {path}: {len(blobs)} blobs, {human(sum(blobs.values()))} for all of its GPUs")
