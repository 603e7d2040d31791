"""``build`` as a matrix: where builds run, what is published where, what is said of each cell; and ``ray-labels``."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from wszoo.cli.common import Session, common_options
from wszoo.cli.output import echo, hint, print_json, print_table
from wszoo.errors import BuildError, UsageError
from wszoo.text import counted, human

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wszoo.building.request import BuildRequest
    from wszoo.fleet.publishing import Settings
    from wszoo.fleet.report import CellReport, MatrixReport, ModelReport
    from wszoo.names import Ref

P = ParamSpec("P")
R = TypeVar("R")
_DIGITS = 12  # of a digest, for people


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """What ``build`` was told about where and how.

    Attributes:
        executor: empty for the default, or the file's.
        address: of a Ray cluster.
        jobs: builds at once.
        to: remote to publish at; empty for none, or the file's.
        allow_unsigned: take over what is there also if nothing vouches for it.
        keep_going: publish what was built although something failed.
        dry_run: build nothing.
        on_this_gpu: add plans for this machine's GPU.
        file: a zoo.toml.
        licence: instead of what the family finds.
    """

    executor: str
    address: str
    jobs: int | None
    to: str
    allow_unsigned: bool
    keep_going: bool
    dry_run: bool
    on_this_gpu: bool
    file: str
    licence: str

    def settings(
        self,
        executor: str = "",
        to: str = "",
        sign: Callable[[Ref], None] | None = None,
        *,
        single: bool = True,
    ) -> Settings:
        """The same for :mod:`wszoo.fleet`; what was not said on the command line may come from a file."""
        from wszoo.fleet.publishing import Settings
        from wszoo.places import open_for_push

        remote = self.to or to
        return Settings(
            executor=self.executor or executor or "local",
            address=self.address,
            jobs=self.jobs,
            remote=open_for_push(remote) if remote else None,
            allow_unsigned=self.allow_unsigned,
            keep_going=self.keep_going,
            dry_run=self.dry_run,
            sign=sign,
            single=single,
        )


def fleet_options(function: Callable[P, R]) -> Callable[P, R]:
    """The options of :class:`FleetOptions`, given to the verb as ``fleet``."""
    names = tuple(FleetOptions.__annotations__)

    @wraps(function)
    def verb(*args: Any, **kwargs: Any) -> R:  # noqa: ANN401 - click's
        chosen = {name: kwargs.pop(name) for name in names}
        return function(*args, **kwargs, fleet=FleetOptions(**chosen))  # type: ignore[arg-type]

    for option in (
        click.option("--licence", default="", metavar="SPDX", help="Instead of what the family finds."),
        click.option(
            "--allow-unsigned", is_flag=True, help="With --to: add to what is there, though nobody signed it."
        ),
        click.option("--keep-going", is_flag=True, help="Publish what was built although something failed."),
        click.option("--dry-run", is_flag=True, help="Show what is built already and what would be."),
        click.option("--on-this-gpu", is_flag=True, help="Add plans for this machine's GPU to the model --tag names."),
        click.option("--to", default="", metavar="REMOTE", help="Publish there as well; Ray's nodes meet there."),
        click.option("--jobs", "-j", type=click.IntRange(min=1), metavar="N", help="Builds at once, on this machine."),
        click.option("--ray-address", "address", default="", metavar="HOST:PORT", help="Else RAY_ADDRESS, else here."),
        click.option(
            "--executor", default="", metavar="NAME", help="local (default), inline or ray; see docs/fleet.md."
        ),
        click.option("--file", "-f", default="", metavar="FILE", help="Build a whole zoo: a zoo.toml."),
    ):
        verb = option(verb)
    return verb


def build_file(session: Session, options: FleetOptions) -> None:
    """Build what a zoo.toml declares."""
    from wszoo.fleet.run import build_matrix
    from wszoo.fleet.zoofile import jobs_of, place_beside, read_zoo
    from wszoo.plugins import registry

    path = Path(options.file)
    zoo, folder = session.zoo(), path.parent
    declared = read_zoo(path, registry())
    sign = None
    if declared.file.signing is not None and not options.dry_run:
        sign = _signer(session, str(folder / declared.file.signing.key), declared.file.signing.expires)
    settings = options.settings(declared.file.executor, place_beside(declared.file.remote, folder), sign, single=False)
    jobs = jobs_of(declared, folder, registry(), zoo.progress)
    report = build_matrix(zoo.store, registry(), jobs, settings, zoo.progress)
    print_matrix(session, report)


def build_model(session: Session, options: FleetOptions, request: BuildRequest, fetch: Callable[[], Path]) -> None:
    """Build one model.

    Args:
        session: its store.
        options: where and how.
        request: what; its source is not fetched yet.
        fetch: fetches it.

    Raises:
        WszooError: what went wrong, where it is one thing.
    """
    from wszoo.fleet.run import Job, build_matrix
    from wszoo.plugins import registry

    zoo = session.zoo()
    job = Job(ref=request.ref, targets=request.targets, request=lambda: replace(request, source=fetch()))
    report = build_matrix(zoo.store, registry(), [job], options.settings(), zoo.progress)
    if options.dry_run:
        print_matrix(session, report)
        return
    if not options.keep_going:
        raise_single(report)
    if session.as_json:
        print_json(_summary(session, report))
    elif report.failed:
        print_cells(report)
    else:
        _print_model(session, report)
    if report.failed:
        raise click.exceptions.Exit(BuildError.exit_code)


def _summary(session: Session, report: MatrixReport) -> dict[str, object]:
    from wszoo.describe import show
    from wszoo.fleet.report import State
    from wszoo.names import Ref

    (model,) = report.models
    plans = {
        str(state): [f"{cell.component} {cell.target}" for cell in model.cells if cell.state is state]
        for state in (State.BUILT, State.KEPT)
    }
    view = show(session.zoo().store, Ref.parse(model.ref)) if "@" in model.ref else None
    return {
        **plans,
        "changes": (),
        "new_weight_bytes": model.new_weight_bytes,
        "failed": report.failed,
        "cells": model.cells,
        "model": view,
    }


def _print_model(session: Session, report: MatrixReport) -> None:
    from wszoo.cli.looking import print_model
    from wszoo.describe import show
    from wszoo.fleet.report import State
    from wszoo.names import Ref

    (model,) = report.models
    sent = f"; {human(model.sent_bytes)} were sent" if model.sent_bytes else ""
    hint(
        f"built {counted(report.count(State.BUILT), 'plan')}, kept {report.count(State.KEPT)}; "
        f"{human(model.new_weight_bytes)} of weights were new to the store{sent}"
    )
    print_model(show(session.zoo().store, Ref.parse(model.ref)))


def build_here(
    session: Session, options: FleetOptions, ref: str, targets: Sequence[str], profiles: Sequence[str]
) -> None:
    """Add plans for this machine's GPU to a model."""
    from wszoo.fleet.on_gpu import build_on_this_gpu
    from wszoo.names import Ref, TargetSpec
    from wszoo.plugins import registry

    zoo = session.zoo()
    report = build_on_this_gpu(
        zoo.store,
        registry(),
        Ref.parse(ref),
        options.settings(),
        zoo.progress,
        targets=[TargetSpec.parse(target) for target in targets],
        profiles=profiles,
    )
    print_matrix(session, report)


def print_matrix(session: Session, report: MatrixReport) -> None:
    """Say what became of all models; ends the program with status 7 where something failed."""
    if session.as_json:
        print_json({"failed": report.failed, "models": report.models})
    else:
        print_cells(report)
        _print_models(report)
    if report.failed:
        raise click.exceptions.Exit(BuildError.exit_code)


def print_cells(report: MatrixReport) -> None:
    """The matrix, and why cells failed."""
    rows = [_row(model, cell) for model in report.models for cell in model.cells]
    print_table(["model", "component", "target", "profiles", "state", "plan", "s"], rows)
    echo()
    for model in report.models:
        for cell in model.cells:
            if cell.error:
                said = f" ({cell.hint})" if cell.hint else ""
                hint(f"{model.ref.partition('@')[0]} {cell.component} {cell.target}: {cell.error}{said}")
            if cell.log:
                hint(f"  its log: {cell.log}, or 'wszoo show {model.ref.partition('@')[0]} --failures'")


def raise_single(report: MatrixReport) -> None:
    """Raise what went wrong where it is one cell of one model: its own error says more than a table.

    Raises:
        WszooError: as the builder raised it.
    """
    from wszoo.fleet.report import State
    from wszoo.fleet.work import Problem

    failed = [cell for model in report.models for cell in model.cells if cell.state is State.FAILED]
    if len(report.models) == 1 and len(failed) == 1:
        (cell,) = failed
        raise Problem(kind=cell.kind, message=cell.error, hint=cell.hint).error()


def _row(model: ModelReport, cell: CellReport) -> list[str]:
    seconds = f"{cell.seconds:.1f}" if cell.seconds else "-"
    plan = cell.plan.removeprefix("sha256:")[:_DIGITS] or "-"
    target = f"{cell.target} ({cell.sku})" if cell.sku else cell.target
    name = model.ref.partition("@")[0]
    return [name, cell.component, target, ",".join(cell.profiles) or "-", cell.state, plan, seconds]


def _print_models(report: MatrixReport) -> None:
    from wszoo.fleet.report import State

    rows = [
        [
            model.ref.partition("@")[0],
            *(str(model.count(state)) for state in (State.KEPT, State.BUILT, State.FAILED)),
            str(model.count(State.TO_BUILD) + model.count(State.NO_NODE)),
            human(model.new_weight_bytes),
            model.state,
        ]
        for model in report.models
    ]
    print_table(["model", "kept", "built", "failed", "left", "new weights", "is"], rows)
    for model in report.models:
        if model.error:
            hint(f"{model.ref}: {model.error}{f' ({model.hint})' if model.hint else ''}")


def _signer(session: Session, key: str, expires: str) -> Callable[[Ref], None]:
    """What signs a ref unless it is signed: building again changes nothing. The key is read now, before the builds."""
    from wszoo.cli.trusting import load_private, parse_expiry
    from wszoo.trust.signatures import signatures_here

    zoo, private, until = session.zoo(), load_private(key), parse_expiry(expires)

    def sign(ref: Ref) -> None:
        if not signatures_here(zoo.store, ref, zoo.store.refs.get(ref).descriptor.digest):
            zoo.sign(ref.tagged, private, expires=until)

    return sign


@click.command("ray-labels")
@common_options
def ray_labels_command(session: Session) -> None:
    """Print what this machine can build, as labels for 'ray start --labels'.

    Tasks choose nodes by them: builders with their versions, and the GPU's product, compute capability and driver.

    \b
    Examples:
      ray start --head --labels "$(wszoo ray-labels)"
      ray start --address HOST:6379 --num-gpus 1 --labels "$(wszoo ray-labels)"
    """
    from wszoo.executors.labels import as_text, differing_gpus, labels_of
    from wszoo.gpu.nvml import detect
    from wszoo.plugins import registry

    machine = detect()
    labels = labels_of(machine, registry().backends.values())
    if different := differing_gpus(machine):
        hint(
            f"this machine has {' and '.join(different)}, and the labels are those of the first: "
            "start a Ray node for each, with CUDA_VISIBLE_DEVICES"
        )
    if session.as_json:
        print_json(labels)
    else:
        click.echo(as_text(labels))
    if not labels:
        sys.stdout.flush()
        raise UsageError("no builder is installed here", hint='pip install "wszoo[rtx]"')
