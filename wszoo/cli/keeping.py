"""``verify``, ``gc``, ``tag`` and ``rm``: looking after the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from wszoo.cli.common import Session, common_options, complete_refs
from wszoo.cli.output import hint, print_json, print_table
from wszoo.errors import UsageError
from wszoo.text import counted, human

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.store.verify import Problem, VerifyReport

DAMAGED = 4


@click.command("verify")
@click.option("--quarantine", is_flag=True, help="Put damaged files aside, so that pull and build replace them.")
@click.option("--repair", is_flag=True, help="Put damaged files aside and fetch them again.")
@click.option("--from", "source", metavar="REMOTE", help="Where to fetch from; else where each model came from.")
@click.option("--fresh", is_flag=True, help="Hash also what an interrupted verify has hashed within the last day.")
@common_options
def verify_command(session: Session, *, quarantine: bool, repair: bool, source: str | None, fresh: bool) -> int:
    """Hash every blob and assembled plan again, follow every model, and name what is damaged or missing.

    Goes on where an interrupted run stopped. Exits with 4 when anything is wrong and was not repaired.

    \b
    Examples:
      wszoo verify --store /srv/zoo
      wszoo verify --repair
      wszoo verify --repair --from https://zoo.example/store
    """
    if source and not repair:
        raise UsageError("--from says where to fetch from, and without --repair nothing is fetched")
    if repair:
        return _repair(session, source, fresh=fresh)
    report = session.zoo().verify(quarantine=quarantine, fresh=fresh)
    if session.as_json:
        print_json(_facts(report))
    else:
        _print_problems(report.problems)
        hint(_summary(report))
        if report.problems:
            hint(
                "put aside; now pull or build those models again"
                if quarantine
                else "run it again with --repair, or with --quarantine, and pull or build those models again"
            )
    return DAMAGED if report.problems else 0


def _repair(session: Session, source: str | None, *, fresh: bool) -> int:
    report = session.zoo().repair(source=source, fresh=fresh)
    if session.as_json:
        mended = {
            "quarantined": report.quarantined,
            "fetched": report.fetched,
            "fetched_bytes": report.fetched_bytes,
            "left": report.left,
        }
        print_json({**_facts(report.found), **mended})
    else:
        _print_problems(report.left)
        hint(_summary(report.found))
        fetched = f"fetched {counted(len(report.fetched), 'blob')}, {human(report.fetched_bytes)}"
        hint(f"put {counted(report.quarantined, 'file')} aside, {fetched}: {counted(len(report.left), 'problem')} left")
        if report.left:
            hint("name a remote that has them with --from, or build those models again, or forget them: wszoo rm REF")
    return DAMAGED if report.left else 0


def _facts(report: VerifyReport) -> dict[str, object]:
    return {
        "checked": report.checked,
        "checked_bytes": report.checked_bytes,
        "resumed": report.resumed,
        "problems": report.problems,
    }


def _summary(report: VerifyReport) -> str:
    before = f", and {report.resumed} were hashed by an interrupted run" if report.resumed else ""
    problems = counted(len(report.problems), "problem")
    return f"{counted(report.checked, 'file')}, {human(report.checked_bytes)}{before}: {problems}"


def _print_problems(problems: Sequence[Problem]) -> None:
    if problems:
        rows = [[each.what, each.path, ", ".join(each.refs), each.detail] for each in problems]
        print_table(["problem", "file", "needed by", "detail"], rows)


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
    report = session.zoo().gc(dry_run=dry_run, grace=grace)
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
@click.argument("ref", shell_complete=complete_refs)
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
@click.argument("refs", nargs=-1, required=True, shell_complete=complete_refs)
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
