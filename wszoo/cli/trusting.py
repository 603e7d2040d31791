"""``key``, ``sign`` and ``trust``: who vouches for models, and whose word counts here."""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING

import click

from wszoo.cli.common import Session, common_options, complete_refs
from wszoo.cli.output import hint, print_json, print_table
from wszoo.text import counted

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from wszoo.schema.trust import Release
    from wszoo.trust.keys import PublicKey

_SPAN = re.compile(r"([1-9][0-9]{0,5})([hdwy])")
_HOURS = {"h": 1, "d": 24, "w": 7 * 24, "y": 365 * 24}


@click.group("key")
def key_command() -> None:
    """Keys to sign with. The private one stays with the publisher; the public one goes to everybody.

    \b
    Examples:
      wszoo key new -o publisher.key
      wszoo key show publisher.key
    """


@key_command.command("new", short_help="Make a key pair: the private key in a file, the public one printed.")
@click.option("-o", "--output", default="wszoo.key", show_default=True, metavar="FILE", help="Where to write it.")
@click.option("--encrypt", is_flag=True, help="Ask for a passphrase; WSZOO_KEY_PASSPHRASE gives one without asking.")
@common_options
def new_key_command(session: Session, *, output: str, encrypt: bool) -> None:
    """Make an Ed25519 key pair: the private key goes to FILE, for its owner alone, the public key is printed.

    \b
    Examples:
      wszoo key new -o publisher.key
      wszoo key new -o publisher.key --encrypt
    """
    from pathlib import Path

    from wszoo.trust.keys import PASSPHRASE, new_key

    passphrase = os.environ.get(PASSPHRASE, "")
    if encrypt and not passphrase:
        passphrase = click.prompt("passphrase", hide_input=True, confirmation_prompt=True, err=True)
    public = new_key(Path(output), passphrase)
    _print_key(session, public, {"path": output, "encrypted": bool(passphrase)})
    state = "it is encrypted" if passphrase else "it is not encrypted"
    hint(f"the private key is in {output}: keep it, and keep it secret; {state}")


@key_command.command("show")
@click.argument("file")
@common_options
def show_key_command(session: Session, *, file: str) -> None:
    """Print the public half of a private key.

    \b
    Example:
      wszoo key show publisher.key
    """
    from wszoo.trust.keys import public_of

    _print_key(session, public_of(load_private(file)), {"path": file})


@click.command("sign")
@click.argument("ref", shell_complete=complete_refs)
@click.option("--key", required=True, metavar="FILE", help="The private key, from 'wszoo key new'.")
@click.option(
    "--expires", default="365d", show_default=True, metavar="WHEN", help="48h, 90d, 26w, 2y, or a date as 2027-12-31."
)
@click.option("--release", type=click.IntRange(min=1), metavar="N", help="Its number; else the time, which grows.")
@common_options
def sign_command(session: Session, *, ref: str, key: str, expires: str, release: int | None) -> None:
    """Sign what a ref of the store points to. The signature stays beside the model, and 'wszoo push' carries it along.

    It holds for this name and tag, until it expires. Clients that have taken a release refuse lower numbers later.

    \b
    Examples:
      wszoo sign mine:1.0 --key publisher.key --expires 90d
      wszoo sign mine:stable --key publisher.key --release 12
    """
    digest, said, public = sign_with(session, ref, key, expires, release)
    if session.as_json:
        print_json({"ref": ref, "signature": digest, "release": said.release, "expires": said.expires, "key": public})


def sign_with(
    session: Session, ref: str, key: str, expires: str, release: int | None = None
) -> tuple[str, Release, PublicKey]:
    """Sign a ref as the command line asks: the signature's digest, what was said, and by whom."""
    made, said, public = session.zoo().sign(ref, load_private(key), expires=parse_expiry(expires), release=release)
    hint(f"signed {ref} as release {said.release}, until {said.expires:%Y-%m-%d %H:%M %Z}, with key {public.short}")
    return made.envelope.digest, said, public


@click.group("trust")
def trust_command() -> None:
    """Whose signatures count, by remote. The keys stand in the settings file, beside the remotes' names.

    \b
    Examples:
      wszoo trust add https://zoo.example/models ed25519:...
      wszoo trust list
      wszoo trust remove https://zoo.example/models
    """


@trust_command.command("add")
@click.argument("remote")
@click.argument("key")
@common_options
def add_trust_command(session: Session, *, remote: str, key: str) -> None:
    """Trust a key for a remote: what it signed may be pulled from there. KEY is the text, or a file that holds it.

    The key counts for the remote's URL. A name from 'wszoo remote add' stands for the URL that it has now.

    \b
    Examples:
      wszoo trust add acme ed25519:...
      wszoo trust add https://zoo.example/models publisher.pub
    """
    from wszoo.places import open_remote
    from wszoo.settings import add_trust, settings_path
    from wszoo.trust.keys import parse_public

    public, url = parse_public(key), open_remote(remote).url
    add_trust(url, public)
    if session.as_json:
        print_json({"remote": url, "key": public, "id": public.id})
    else:
        hint(f"key {public.short} is trusted for {url}, in {settings_path()}")


@trust_command.command("list")
@common_options
def list_trust_command(session: Session) -> None:
    """List the trusted keys.

    \b
    Example:
      wszoo trust list --json
    """
    from wszoo.settings import settings_path, trust
    from wszoo.trust.vouching import trusted_keys

    rows = [(url, key) for url in trust() for key in trusted_keys(url)]
    if session.as_json:
        print_json([{"remote": url, "key": key, "id": key.id} for url, key in rows])
    elif rows:
        print_table(["remote", "id", "key"], [[url, key.short, key] for url, key in rows])
    else:
        hint(f"no trusted keys in {settings_path()} yet: 'wszoo trust add REMOTE KEY' adds one")


@trust_command.command("remove")
@click.argument("remote")
@click.argument("key", required=False)
@common_options
def remove_trust_command(session: Session, *, remote: str, key: str | None) -> None:
    """Trust a key no longer, or no key of the remote at all. What was pulled stays.

    \b
    Example:
      wszoo trust remove https://zoo.example/models
    """
    from wszoo.places import open_remote
    from wszoo.settings import remove_trust, trust
    from wszoo.trust.keys import parse_public

    url = remote if remote in trust() else open_remote(remote).url
    gone = remove_trust(url, parse_public(key) if key else None)
    if session.as_json:
        print_json({"remote": url, "removed": gone})
    else:
        hint(f"no longer trusted for {url}: {counted(len(gone), 'key')}")


def parse_expiry(text: str) -> datetime:
    """``90d`` from now on, or a date: the moment in UTC.

    Raises:
        UsageError: neither.
    """
    from datetime import UTC, datetime, timedelta

    from wszoo.errors import UsageError

    try:
        if match := _SPAN.fullmatch(text):
            return datetime.now(UTC) + timedelta(hours=int(match[1]) * _HOURS[match[2]])
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:  # the last year is 9999
        raise UsageError(f"not a time: {text!r}", hint="such as 48h, 90d, 26w, 2y, or 2027-12-31") from error


def load_private(file: str) -> Ed25519PrivateKey:
    """The private key in a file, asking for its passphrase where somebody can answer.

    Raises:
        NotFoundError: there is no such file.
        UsageError: the passphrase is missing or wrong.
    """
    from pathlib import Path

    from wszoo.trust.keys import PASSPHRASE, is_encrypted, load_key

    path, passphrase = Path(file), os.environ.get(PASSPHRASE, "")
    if is_encrypted(path) and not passphrase and sys.stdin.isatty():
        passphrase = click.prompt(f"passphrase of {file}", hide_input=True, err=True)
    return load_key(path, passphrase)


def _print_key(session: Session, public: PublicKey, facts: dict[str, object]) -> None:
    if session.as_json:
        print_json({"public_key": public, "id": public.id, **facts})
    else:
        click.echo(public)
