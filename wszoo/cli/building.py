"""``build``: from a model's source to plans in the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wszoo.cli.common import Session, common_options, pairs
from wszoo.cli.fleet import FleetOptions, build_file, build_here, build_model, fleet_options
from wszoo.cli.looking import print_model
from wszoo.cli.output import echo, hint, print_json, print_table
from wszoo.errors import UsageError
from wszoo.text import counted, human

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wszoo.building.build import BuildReport
    from wszoo.building.request import BuildRequest
    from wszoo.describe import ModelView


@click.command("build")
@click.argument("family", default="")
@click.option("--source", metavar="PATH|hf:ORG/REPO", help="The model: a file, a folder, or a Hub repository.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET[,TARGET]",
    help="portable, rtx-sm89, ...; required, except with --weights-only.",
)
@click.option("--tag", metavar="NAME:TAG", help="What to publish it as in the store.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME|SPEC", help="An optimization profile; repeatable.")
@click.option("--precision", default="", metavar="TYPE", help="fp32, fp16, ...; else the source's own.")
@click.option("--option", "-o", "options", multiple=True, metavar="KEY=VALUE", help="For the family; repeatable.")
@click.option(
    "--lora",
    "loras",
    multiple=True,
    metavar="FILE[:SCALE]",
    help="Merge a LoRA into the weights; repeatable. Short for the option 'lora' of families that have it.",
)
@click.option(
    "--weights-only", is_flag=True, help="Only weights changed: follow the plans of an earlier version (see above)."
)
@click.option("--like", metavar="REF", help="With --weights-only: that version; else what --tag names now.")
@fleet_options
@common_options
def build_command(
    session: Session,
    *,
    family: str,
    source: str | None,
    targets: tuple[str, ...],
    tag: str | None,
    profiles: tuple[str, ...],
    precision: str,
    options: tuple[str, ...],
    loras: tuple[str, ...],
    weights_only: bool,
    like: str | None,
    fleet: FleetOptions,
) -> None:
    """Export a model with a family's plugin, build a plan for every target, and publish them under a tag.

    Targets are 'portable' (runs anywhere, in ONNX Runtime) and 'rtx-smNN' (TensorRT-RTX for GPUs of that compute
    capability; no GPU is needed to build one); 'trt-smNN' is classic TensorRT, on such a GPU (docs/native.md).
    Building again keeps what still fits and builds the rest.

    \b
    A profile gives the shapes of dynamic inputs as min:opt:max, or as one shape:
      --profile "images=1x3x320x320:1x3x640x640:4x3x640x640"
      --profile "ids=1x8:1x64:4x512,mask=1x8:1x64:4x512"

    With --weights-only the source must be the network of an earlier version with other weights. Targets and profiles
    are that version's. Portable plans are kept, plans of networks whose weights did not change, and native ones that
    take any weights. Splice plans are built again; where the operations that restored the earlier plan restore the new
    one, it costs no bytes, and else a few kilobytes. A plan whose builder is missing here is left out. What became of
    each plan is printed; a network that differs in more than its weights is refused.

    Several plans are built at once, in processes of this machine or, with --executor ray, on the nodes of a cluster.
    A whole zoo is built with --file; --on-this-gpu adds the plans for this machine's GPU to a model that there is. See
    docs/fleet.md.

    \b
    Examples:
      wszoo build onnx --source model.onnx --target portable,rtx-sm89 --tag mine:1.0
      wszoo build cnn --source resnet-50/ --precision fp16 --target rtx-sm86,rtx-sm89 --tag resnet:1.0
      wszoo build cnn --source tuned/ --precision fp16 --weights-only --like resnet:1.0 --tag resnet:1.1
      wszoo build sdxl --source sdxl/ --target portable --lora style.safetensors:0.8 --tag sdxl:style
      wszoo build --file zoo.toml --dry-run
      wszoo build --on-this-gpu --tag resnet:1.0 --to oci://registry.example/acme
    """
    if fleet.file:
        given = {
            "FAMILY": family,
            "--source": source,
            "--target": targets,
            "--tag": tag,
            "--weights-only": weights_only,
        }
        _refuse({**given, "--on-this-gpu": fleet.on_this_gpu, "--licence": fleet.licence}, "--file says it all")
        build_file(session, fleet)
        return
    if not tag:
        raise UsageError("--tag is missing", hint="name the model: --tag mine:1.0")
    names = [target for part in targets for target in part.split(",") if target]
    if fleet.on_this_gpu:
        given = {"FAMILY": family, "--source": source, "--weights-only": weights_only, "--licence": fleet.licence}
        _refuse(given, "--on-this-gpu takes graph and weights from the model that there is")
        build_here(session, fleet, tag, names, profiles)
        return
    if not family or not source:
        raise UsageError("FAMILY and --source are missing", hint="see 'wszoo build --help', or name a --file")
    asked = _Asked(family, source, tag, tuple(names), profiles, precision, _options(options, loras))
    followed = _followed(tag, targets, like, weights_only=weights_only)
    if followed is None:
        build_model(session, fleet, *asked.as_request(session, fleet.licence))
        return
    given = {"--executor": fleet.executor, "--to": fleet.to, "--dry-run": fleet.dry_run, "--licence": fleet.licence}
    _refuse({**given, "--keep-going": fleet.keep_going}, "--weights-only builds in this process, and into the store")
    _build_weights(session, asked, followed)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the command line says about one model."""

    family: str
    source: str
    tag: str
    targets: tuple[str, ...]
    profiles: tuple[str, ...]
    precision: str
    options: dict[str, str]

    def as_request(self, session: Session, licence: str) -> tuple[BuildRequest, Callable[[], Path]]:
        """The same with its words parsed, and what fetches its source."""
        from wszoo.building.request import BuildRequest
        from wszoo.building.sources import chooser, fetch_source
        from wszoo.families.protocol import SourceRequest
        from wszoo.names import Ref, TargetSpec
        from wszoo.plugins import registry

        ref, specs = Ref.parse(self.tag), tuple(TargetSpec.parse(target) for target in self.targets)
        if ref.digest is not None:
            raise UsageError(f"a build cannot publish under a pinned name: {ref}", hint="leave the digest out")
        family = registry().family(self.family)
        wanted = SourceRequest(precision=self.precision, targets=specs, options=self.options)
        request = BuildRequest(
            family=self.family,
            source=Path(self.source),
            ref=ref,
            targets=specs,
            profiles=self.profiles,
            precision=self.precision,
            options=self.options,
            licence=licence,
        )
        return request, lambda: fetch_source(self.source, session.zoo().progress, chooser(family, wanted))


def _build_weights(session: Session, asked: _Asked, followed: str) -> None:
    from wszoo.describe import show

    zoo = session.zoo()
    report = zoo.build(
        asked.family,
        asked.source,
        tag=asked.tag,
        targets=asked.targets,
        profiles=asked.profiles,
        precision=asked.precision,
        options=asked.options,
        weights_of=followed,
    )
    _print_report(session, report, show(zoo.store, report.ref))


def _refuse(given: Mapping[str, object], why: str) -> None:
    """Raise where something was given that would be ignored."""
    named = [name for name, value in given.items() if value]
    if named:
        raise UsageError(f"{', '.join(named)} cannot be given here", hint=why)


def _print_report(session: Session, report: BuildReport, view: ModelView) -> None:
    if session.as_json:
        print_json({**_summary(report), "model": view})
        return
    hint(
        f"built {counted(len(report.built), 'plan')}, kept {len(report.kept)}; "
        f"{human(report.new_weight_bytes)} of weights were new to the store"
    )
    _print_changes(report)
    print_model(view)


def _options(options: tuple[str, ...], loras: tuple[str, ...]) -> dict[str, str]:
    found = pairs(options, "--option")
    if loras and "lora" in found:
        raise UsageError("--lora and --option lora= say the same", hint="give one of them; --lora may be repeated")
    return found | ({"lora": ",".join(loras)} if loras else {})


def _followed(tag: str, targets: tuple[str, ...], like: str | None, *, weights_only: bool) -> str | None:
    """The ref whose plans are followed, if any."""
    if like and not weights_only:
        raise UsageError("--like goes with --weights-only")
    if not weights_only and not targets:
        raise UsageError("no target to build for", hint="name at least one: --target portable,rtx-sm89")
    return (like or tag) if weights_only else None


def _summary(report: BuildReport) -> dict[str, object]:
    plans = {
        name: [f"{plan.config.component} {plan.config.target.name}" for plan in found]
        for name, found in (("built", report.built), ("kept", report.kept))
    }
    return {**plans, "changes": report.changes, "new_weight_bytes": report.new_weight_bytes}


def _print_changes(report: BuildReport) -> None:
    if report.changes:
        rows = [
            [each.component, each.target, each.kind, each.action, human(each.new_bytes), each.why]
            for each in report.changes
        ]
        print_table(["component", "target", "kind", "plan is", "new", "because"], rows)
        echo()
