"""``doctor``, ``plugins`` and ``completion``: about this machine and this installation."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from wszoo.cli.common import Session, common_options
from wszoo.cli.output import echo, print_facts, print_json, print_table
from wszoo.text import human
from wszoo.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wszoo.gpu.machine import Machine


@click.command("doctor")
@common_options
def doctor_command(session: Session) -> None:
    """Check this machine: its GPUs, what runs plans here, and the store.

    \b
    Example:
      wszoo doctor --json
    """
    from wszoo.plugins import broken_plugins, registry
    from wszoo.surroundings import machine, runtimes

    zoo = session.zoo()
    here, installed = machine(), runtimes()
    root = zoo.store.layout.root
    parent = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
    if session.as_json:
        print_json(
            {
                "wszoo": __version__,
                "python": sys.version.split()[0],
                "machine": here,
                "runtimes": installed,
                "broken_plugins": [plugin.name for plugin in registry().plugins if plugin.error],
                "store": {"path": str(root), "exists": root.exists(), "free_bytes": shutil.disk_usage(parent).free},
            }
        )
        return
    print_facts(
        [
            ("wszoo", f"{__version__} on Python {sys.version.split()[0]}, {here.os} {here.arch}"),
            *((f"GPU {number}", str(gpu)) for number, gpu in enumerate(here.gpus)),
            ("driver", f"{here.driver}, CUDA {here.cuda_driver}" if here.driver else ""),
            ("no GPU" if not here.gpus else "left out", here.problem),
            *((each.backend, f"{each.version} for {_devices(each.devices, here)}") for each in installed),
            ("store", f"{root}, {human(shutil.disk_usage(parent).free)} free"),
        ]
    )
    if broken := broken_plugins(registry().plugins):
        echo(broken)
    if not installed:
        echo('nothing here can run a plan: pip install "wszoo[ort]"')


@click.command("plugins")
@common_options
def plugins_command(session: Session) -> None:
    """List plugins, what they provide, and why broken ones are broken.

    \b
    Example:
      wszoo plugins
    """
    from wszoo.plugins import registry

    found = registry().plugins
    if session.as_json:
        print_json(found)
        return
    rows = [
        [plugin.name, plugin.package, f"broken: {plugin.error}" if plugin.error else ", ".join(plugin.provides)]
        for plugin in found
    ]
    print_table(["plugin", "package", "provides"], rows)


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common_options
def completion_command(session: Session, *, shell: str) -> None:
    """Print the completion script for a shell: verbs and options, at a press of the tab key.

    \b
    Examples:
      wszoo completion bash >> ~/.bash_completion
      wszoo completion zsh > ~/.zfunc/_wszoo
      wszoo completion fish > ~/.config/fish/completions/wszoo.fish
    """
    from click.shell_completion import get_completion_class

    from wszoo.cli.app import app

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(app, {}, "wszoo", "_WSZOO_COMPLETE").source()
    if session.as_json:
        print_json({"shell": shell, "script": script})
    else:
        echo(script)


def _devices(devices: Sequence[str], here: Machine) -> str:
    """``cpu, cuda``, and what to think of ``cuda`` where there is no GPU."""
    return ", ".join(f"{each} (no GPU here)" if each == "cuda" and not here.gpus else each for each in devices)
