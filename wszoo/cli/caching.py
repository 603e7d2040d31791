"""``wszoo cache``: the assembled plans that are kept, and how many."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from wszoo.cli.common import Session, common_options, complete_refs
from wszoo.cli.output import hint, print_json, print_table
from wszoo.names import Ref
from wszoo.text import counted, human, parse_size


@click.group("cache")
def cache_command() -> None:
    """Look after the assembled plans: they make loading quick, and can be made again at any time.

    \b
    Examples:
      wszoo cache list
      wszoo cache limit '20 GB'
      wszoo cache clear
      wszoo cache ship sdxl:1.0
    """


@cache_command.command("list")
@common_options
def list_command(session: Session) -> None:
    """List the assembled plans, the last used first.

    \b
    Example:
      wszoo cache list --json
    """
    from wszoo.settings import cache_limit

    kept, limit = session.zoo().cached(), cache_limit()
    total = sum(each.size for each in kept)
    if session.as_json:
        print_json({"engines": kept, "total_bytes": total, "limit": limit})
        return
    if kept:
        rows = [
            [_time(each.used), human(each.size), ", ".join(each.plans) or "no model", each.kept_as.short]
            for each in kept
        ]
        print_table(["last used", "size", "plan of", "digest"], rows)
    hint(f"{len(kept)} assembled plans, {human(total)}; {_limit(limit)}")


@cache_command.command("limit", short_help="Keep at most SIZE of assembled plans.")
@click.argument("size", required=False)
@click.option("--none", "no_limit", is_flag=True, help="Keep any number.")
@common_options
def limit_command(session: Session, *, size: str | None, no_limit: bool) -> None:
    """Keep at most SIZE of assembled plans, as in '20 GB'; those not used for longest go first.

    Applies now and whenever a plan is assembled, in every store of this user. Without SIZE the limit is printed.

    \b
    Examples:
      wszoo cache limit '20 GB'
      wszoo cache limit --none
    """
    from wszoo.settings import cache_limit, set_cache_limit

    report = None
    if no_limit or size is not None:
        wanted = None if no_limit or size is None else parse_size(size)
        set_cache_limit(wanted)
        zoo = session.zoo()
        if wanted is not None and zoo.store.layout.marker.is_file():
            report = zoo.shrink_cache(wanted)
    limit = cache_limit()
    freed = report.freed_bytes if report else 0
    if session.as_json:
        print_json({"limit": limit, "deleted": report.deleted if report else [], "freed_bytes": freed})
    else:
        hint(f"{_limit(limit)}; freed {human(freed)}")


@cache_command.command("clear", short_help="Delete the assembled plans.")
@common_options
def clear_command(session: Session) -> None:
    """Delete the assembled plans, but those that were used within the last minute or are in use.

    \b
    Example:
      wszoo cache clear
    """
    report = session.zoo().shrink_cache(0)
    if session.as_json:
        kept = {"kept_bytes": report.kept_bytes, "kept_in_use": report.kept_in_use}
        print_json({"deleted": report.deleted, "freed_bytes": report.freed_bytes, **kept})
    else:
        used = f"; kept {report.kept_in_use} in use" if report.kept_in_use else ""
        hint(f"deleted {len(report.deleted)} assembled plans, {human(report.freed_bytes)}{used}")


@cache_command.command("ship", short_help="Add this GPU's compiled kernels to a model.")
@click.argument("ref", shell_complete=complete_refs)
@common_options
def ship_command(session: Session, *, ref: str) -> None:
    """Add the kernels that TensorRT-RTX compiled on this machine's GPU to a model in the store.

    Load and run its plans here first. Then push the model: who pulls it for the same GPU product need not compile.

    \b
    Example:
      wszoo cache ship sdxl:1.0
    """
    shipped = session.zoo().ship_caches(ref)
    if session.as_json:
        print_json({"ref": Ref.parse(ref).tagged, "caches": shipped})
        return
    rows = [[each.product, f"{each.backend} {each.version}", each.cuda, human(each.size)] for each in shipped]
    print_table(["GPU", "runtime", "CUDA", "size"], rows)
    hint(f"{Ref.parse(ref).tagged} has {counted(len(shipped), 'runtime cache')} of this machine; push it again")


def _limit(limit: int | None) -> str:
    return "no limit" if limit is None else f"the limit is {human(limit)}"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")
