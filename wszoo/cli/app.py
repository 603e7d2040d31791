"""The ``wszoo`` command: finds verbs, and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

import click

from wszoo.errors import UsageError, WszooError
from wszoo.text import nearest
from wszoo.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
DEFECT = 1

# verb -> (module in wszoo.cli, one line for --help). Written out, so that --help imports none of them.
VERBS = {
    "pull": ("pulling", "Fetch a model and the plans that fit a GPU."),
    "run": ("pulling", "Run a model's own demo."),
    "resolve": ("pulling", "Tell which plan a GPU would get, and why."),
    "build": ("building", "Export a model and build plans for several targets."),
    "refit": ("refitting", "Give a model's plans the weights of another version."),
    "ray-labels": ("fleet", "Print what this machine can build, as labels of a Ray node."),
    "list": ("looking", "List the models in the store."),
    "show": ("looking", "Show a model: plans, sizes, what is shared."),
    "diff": ("looking", "Show what two models share."),
    "report": ("looking", "Write a model's sizes as a page or a picture."),
    "site": ("showing", "Write the store's models as pages for people."),
    "export": ("exporting", "Write a model as files for another runtime."),
    "push": ("remoting", "Copy a model to a remote."),
    "serve": ("remoting", "Serve the store over HTTP, read only."),
    "remote": ("remoting", "Give remotes names: add, list, remove."),
    "key": ("trusting", "Make a signing key, or show a public key."),
    "sign": ("trusting", "Sign a model, so that others can trust it."),
    "trust": ("trusting", "Whose signatures count, by remote: add, list, remove."),
    "lock": ("locking", "Pin models for an app, in a lock file."),
    "bundle": ("locking", "Write what a lock file names into a folder."),
    "tag": ("keeping", "Give a model a second name."),
    "verify": ("keeping", "Hash everything again and name what is damaged."),
    "gc": ("keeping", "Delete what no model needs."),
    "rm": ("keeping", "Forget a model."),
    "cache": ("caching", "Assembled plans: list, limit, clear."),
    "doctor": ("system", "Check this machine: GPU, runtimes, store."),
    "plugins": ("system", "List plugins, and why broken ones are broken."),
    "completion": ("system", "Print the shell completion script."),
}

# The verb that opens each section of --help.
HEADINGS = {
    "pull": "Use models",
    "build": "Make models",
    "list": "Look at models",
    "export": "Hand models on",
    "key": "Say who is trusted",
    "lock": "Ship models with an app",
    "tag": "Look after the store",
    "doctor": "About this machine",
}

EPILOG = """\
\b
Examples:
  wszoo pull digits-cnn --from store/ --gpu auto
  wszoo run digits-cnn
  wszoo build onnx --source model.onnx --target portable,rtx-sm89 --tag mine:1.0
  wszoo show mine:1.0

\b
Exit codes: 0 done, 1 a defect in wszoo, 2 usage, 3 not found, 4 damaged bytes, 5 nothing fits,
6 an optional package is missing, 7 the build failed, 8 storage, 9 remote, 10 not trusted, 130 interrupted.
"""


class _Verbs(click.Group):
    """Imports a verb's module when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in VERBS:
            return None
        module = import_module(f"wszoo.cli.{VERBS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in VERBS and not word.startswith("-") and not ctx.resilient_parsing:
            found = nearest(word, VERBS)  # click looks among commands that are loaded, and none is
            raise click.UsageError(f"No such command {word!r}" + (f"; {found}" if found else "."), ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(map(len, VERBS))  # the same in every section
        rows: dict[str, list[tuple[str, str]]] = {}
        heading = ""
        for verb, (_, text) in VERBS.items():
            heading = HEADINGS.get(verb, heading)
            rows.setdefault(heading, []).append((verb.ljust(width), text))
        for heading, listed in rows.items():
            with formatter.section(heading):
                formatter.write_dl(listed)


@click.group(cls=_Verbs, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", message="wszoo %(version)s")
def app() -> None:
    """Every weight once, one small plan per GPU.

    wszoo keeps models in a content-addressed store: the weights once, and for every GPU target a plan without them.
    Pull a model, and the plan that fits your GPU is fetched, checked, and put together with the weights.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        color = False if os.environ.get("NO_COLOR") else None
        code = app.main(words, prog_name="wszoo", standalone_mode=False, color=color)
    except WszooError as error:
        sys.exit(_fail(error, words))
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted; what was fetched or built so far is kept where it can be used again", err=True)
        sys.exit(INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(UsageError.exit_code)
    except click.ClickException as error:
        sys.exit(_fail(_usage(error), words))
    except BrokenPipeError:
        sys.stderr.close()  # the reader went away, as in 'wszoo list | head'
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the last line of defence, for a message instead of a traceback
        sys.exit(_defect(error, words))
    sys.exit(code if isinstance(code, int) else 0)


def _usage(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "wszoo"
    return UsageError(error.format_message(), hint=f"see '{where} --help'")


def _fail(error: WszooError, words: Sequence[str]) -> int:
    from wszoo.cli.output import print_error

    print_error(error, as_json="--json" in words, debug="--debug" in words)
    return error.exit_code


def _defect(error: Exception, words: Sequence[str]) -> int:
    if "--debug" in words:
        raise error
    from wszoo.cli.output import print_error

    hint = "this is a defect in wszoo: run again with --debug and report the traceback"
    print_error(WszooError(f"{type(error).__name__}: {error}", hint=hint), as_json="--json" in words, debug=False)
    return DEFECT
