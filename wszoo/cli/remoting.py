"""``push``, ``serve`` and ``remote``: getting models to other machines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from wszoo.cli.common import Session, common_options, complete_refs
from wszoo.cli.output import hint, print_json, print_table
from wszoo.cli.trusting import sign_with
from wszoo.errors import WszooError
from wszoo.text import counted, human

if TYPE_CHECKING:
    from wszoo.store.store import Store


@click.command("push")
@click.argument("ref", shell_complete=complete_refs)
@click.argument("remote")
@click.option("--as", "name", metavar="NAME:TAG", help="The name to give it there; else the same.")
@click.option("--replace", is_flag=True, help="Move the tag there even if plans that only it has get lost.")
@click.option("--sign", "key", metavar="FILE", help="Sign it with this private key first.")
@click.option("--expires", default="365d", show_default=True, metavar="WHEN", help="With --sign: as for 'wszoo sign'.")
@click.option("--dry-run", is_flag=True, help="Tell what would be sent.")
@common_options
def push_command(
    session: Session,
    *,
    ref: str,
    remote: str,
    name: str | None,
    replace: bool,
    key: str | None,
    expires: str,
    dry_run: bool,
) -> None:
    """Copy a model with all of its plans to a remote: what is missing there first, the tag last.

    REMOTE is a folder, oci://HOST/PATH, s3://BUCKET/PREFIX (gs://, az://), hf://ORG/REPO, or a name that
    'wszoo remote add' gave.

    \b
    Examples:
      wszoo push mine:1.0 /mnt/share/store
      wszoo push mine:1.0 oci://registry.example/acme
      wszoo push mine:1.0 acme --as mine:stable
      wszoo push mine:1.0 acme --sign publisher.key
    """
    if key is not None and not dry_run:
        if name is not None:
            raise click.UsageError("a signature holds for one name: 'wszoo tag' it first, then push that name")
        sign_with(session, ref, key, expires)
    report = session.zoo().push(ref, remote, name=name, replace=replace, dry_run=dry_run)
    if session.as_json:
        sent = [{"digest": each.digest, "size": each.size, "media_type": each.media_type} for each in report.sent]
        print_json(
            {
                "ref": report.ref.tagged,
                "index_digest": report.ref.digest,
                "before": report.before,
                "moved": report.moved,
                "dry_run": dry_run,
                "sent": sent,
                "sent_bytes": report.sent_bytes,
                "present": report.present,
                "signatures_sent": report.signatures,
            }
        )
        return
    verb = "would send" if dry_run else "sent"
    signed = f"; {counted(report.signatures, 'signature')}" if report.signatures else ""
    hint(f"{verb} {human(report.sent_bytes)} in {len(report.sent)} blobs{signed}; {report.present} were there")
    state = "would become" if dry_run and report.moved else "is" if report.moved else "was already"
    click.echo(f"{report.ref.tagged} {state} {report.ref.digest}")


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for the network.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@common_options
def serve_command(session: Session, *, host: str, port: int) -> None:
    """Serve the store over HTTP, read only, until interrupted. Without TLS or passwords: for a LAN or a test.

    Clients pull from the URL that is printed first, and a browser shows the models there, as pages like those of
    'wszoo site'. Requests are logged on stderr unless --quiet.

    \b
    Example:
      wszoo serve --host 0.0.0.0 --port 8765
    """
    from wszoo.catalog.live import Catalog
    from wszoo.distribution.serve import StoreServer

    store = session.zoo().store
    store.layout.create()
    _warn_of_incomplete(store)
    log = None if session.quiet else hint
    with StoreServer(store, host, port, log=log, pages=Catalog(store)) as server:
        if session.as_json:
            print_json({"url": server.url, "store": str(store.layout.root)})
        else:
            click.echo(server.url)
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            hint("stopped")


def _warn_of_incomplete(store: Store) -> None:
    """Name the models that clients cannot have all of; what is here of them is served."""
    from wszoo.store.wholeness import advice, lack_of

    for entry in store.refs.survey()[0]:
        try:
            lack = lack_of(store, entry)
        except WszooError as error:
            hint(f"{entry.ref.tagged} cannot be served: {error.message}")
            continue
        if lack:
            hint(f"{entry.ref.tagged} is not here as a whole: {lack}. To serve all of it: {advice(entry)}")


@click.group("remote")
def remote_command() -> None:
    """Give remotes names, with mirrors. They stand in a TOML file; WSZOO_CONFIG names another one.

    \b
    Examples:
      wszoo remote add acme oci://registry.example/acme --mirror https://mirror.example/acme
      wszoo remote list
      wszoo remote remove acme
    """


@remote_command.command("add")
@click.argument("name")
@click.argument("url")
@click.option("--mirror", "mirrors", multiple=True, metavar="URL", help="The same blobs elsewhere; repeatable.")
@common_options
def add_command(session: Session, *, name: str, url: str, mirrors: tuple[str, ...]) -> None:
    """Give a remote a name, or change what the name stands for.

    \b
    Example:
      wszoo remote add acme oci://registry.example/acme --mirror https://mirror.example/acme
    """
    from wszoo.settings import add_remote, settings_path

    add_remote(name, url, mirrors)
    if session.as_json:
        print_json({"name": name, "url": url, "mirrors": mirrors})
    else:
        hint(f"{name} is {url}, in {settings_path()}")


@remote_command.command("list")
@common_options
def list_remotes_command(session: Session) -> None:
    """List the configured remotes.

    \b
    Example:
      wszoo remote list
    """
    from wszoo.settings import remotes, settings_path

    known = remotes()
    if session.as_json:
        print_json([{"name": name, "url": each.url, "mirrors": each.mirrors} for name, each in known.items()])
    elif known:
        rows = [[name, each.url, " ".join(each.mirrors)] for name, each in known.items()]
        print_table(["remote", "url", "mirrors"], rows)
    else:
        hint(f"no remotes in {settings_path()} yet: 'wszoo remote add NAME URL' adds one")


@remote_command.command("remove")
@click.argument("name")
@common_options
def remove_command(session: Session, *, name: str) -> None:
    """Forget a remote's name. What was pulled from it stays.

    \b
    Example:
      wszoo remote remove acme
    """
    from wszoo.settings import remove_remote

    remove_remote(name)
    if session.as_json:
        print_json({"removed": name})
    else:
        hint(f"forgot {name}")
