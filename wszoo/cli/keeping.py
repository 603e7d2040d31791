"""``verify``, ``gc``, ``tag`` and ``rm``: looking after the store."""

from __future__ import annotations

import click

from wszoo.cli.common import Session, common_options
from wszoo.cli.output import hint, print_json, print_table
from wszoo.text import human

DAMAGED = 4


@click.command("verify")
@click.option("--quarantine", is_flag=True, help="Put damaged files aside, so that pull and build replace them.")
@common_options
def verify_command(session: Session, *, quarantine: bool) -> int:
    """Hash every blob and assembled plan again, follow every model, and name what is damaged or missing.

    Exits with 4 when anything is.

    \b
    Example:
      wszoo verify --store /srv/zoo
    """
    zoo = session.zoo()
    report = zoo.verify(quarantine=quarantine)
    if session.as_json:
        print_json({"checked": report.checked, "checked_bytes": report.checked_bytes, "problems": report.problems})
    else:
        if report.problems:
            rows = [[each.what, each.path, ", ".join(each.refs), each.detail] for each in report.problems]
            print_table(["problem", "file", "needed by", "detail"], rows)
        hint(f"{report.checked} files, {human(report.checked_bytes)}: {len(report.problems)} problems")
        if report.problems:
            hint(
                "put aside; now pull or build those models again"
                if quarantine
                else "run it again with --quarantine, then pull or build those models again"
            )
    return DAMAGED if report.problems else 0


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Tell what would be deleted.")
@click.option("--grace", type=click.FloatRange(min=0), metavar="SECONDS", help="Keep what is younger.  [default: 3600]")
@common_options
def gc_command(session: Session, *, dry_run: bool, grace: float | None) -> None:
    """Delete blobs that no model needs; safe beside running pulls and builds.

    \b
    Examples:
      wszoo gc --dry-run
      wszoo gc --grace 0
    """
    from wszoo.store.gc import GRACE

    zoo = session.zoo()
    report = zoo.gc(dry_run=dry_run, grace=GRACE if grace is None else grace)
    if session.as_json:
        print_json(
            {
                "dry_run": dry_run,
                "deleted": report.deleted,
                "freed_bytes": report.freed_bytes,
                "kept_recent": report.kept_recent,
            }
        )
        return
    verb = "would delete" if dry_run else "deleted"
    hint(f"{verb} {len(report.deleted)} blobs, {human(report.freed_bytes)}; kept {report.kept_recent} recent ones")


@click.command("tag")
@click.argument("ref")
@click.argument("new")
@common_options
def tag_command(session: Session, *, ref: str, new: str) -> None:
    """Give a model a second name; it is stored once.

    \b
    Example:
      wszoo tag resnet:1.0 resnet:latest
    """
    tagged = session.zoo().tag(ref, new)
    if session.as_json:
        print_json({"ref": tagged.tagged, "index_digest": tagged.digest})
    else:
        hint(f"{tagged.tagged} is {tagged.digest}")


@click.command("rm")
@click.argument("refs", nargs=-1, required=True)
@common_options
def rm_command(session: Session, *, refs: tuple[str, ...]) -> None:
    """Forget models; 'wszoo gc' then deletes what only they needed.

    \b
    Example:
      wszoo rm resnet:1.0 && wszoo gc
    """
    zoo = session.zoo()
    for ref in refs:
        zoo.remove(ref)
    if session.as_json:
        print_json({"removed": refs})
    else:
        hint(f"forgot {', '.join(refs)}; run 'wszoo gc' to free the space")
