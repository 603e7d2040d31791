"""``site``: the store as pages."""

from __future__ import annotations

from pathlib import Path

import click

from wszoo.cli.common import Session, common_options
from wszoo.cli.output import hint, print_json
from wszoo.text import counted, human


@click.command("site")
@click.option("-o", "--output", required=True, metavar="DIR", help="New, empty, a former site, or the store's own.")
@click.option("--url", default="", metavar="URL", help="Where the store will be found, for the commands on the pages.")
@common_options
def site_command(session: Session, *, output: str, url: str) -> None:
    """Write the store's models as static pages for people: search, sizes, targets, how to get each.

    Any web server can serve them, and they work from a disk. Writing again writes what has changed. Models that cannot
    be read are listed as broken.

    \b
    Examples:
      wszoo site -o public/ --url https://zoo.example/models
      wszoo site --store /srv/www/zoo -o /srv/www/zoo
    """
    from wszoo.catalog.site import write_site

    zoo = session.zoo()
    zoo.store.require()
    report = write_site(zoo.store, Path(output), url=url, progress=zoo.progress)
    if session.as_json:
        print_json({"path": str(Path(output).resolve()), **_facts(report)})
        return
    broken = f", {report.broken} of them broken" if report.broken else ""
    gone = f", removed {report.removed}" if report.removed else ""
    wrote = f"wrote {counted(report.written, 'file')}, {human(report.written_bytes)}"
    hint(f"{counted(report.models, 'model')}{broken}: {wrote}{gone}; {report.kept} were right already")
    click.echo(str(Path(output) / "index.html"))


def _facts(report: object) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(report)  # type: ignore[call-overload,no-any-return]
