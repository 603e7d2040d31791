"""``build``: from a model's source to plans in the store."""

from __future__ import annotations

import click

from wszoo.cli.common import Session, common_options, pairs
from wszoo.cli.looking import print_model
from wszoo.cli.output import hint, print_json
from wszoo.text import human


@click.command("build")
@click.argument("family")
@click.option(
    "--source", required=True, metavar="PATH|hf:ORG/REPO", help="The model: a file, a folder, or a Hub repository."
)
@click.option(
    "--target", "targets", multiple=True, required=True, metavar="TARGET[,TARGET]", help="portable, rtx-sm89, ..."
)
@click.option("--tag", required=True, metavar="NAME:TAG", help="What to publish it as in the store.")
@click.option("--profile", "profiles", multiple=True, metavar="NAME|SPEC", help="An optimization profile; repeatable.")
@click.option("--precision", default="", metavar="TYPE", help="fp32, fp16, ...; else the source's own.")
@click.option("--option", "-o", "options", multiple=True, metavar="KEY=VALUE", help="For the family; repeatable.")
@common_options
def build_command(
    session: Session,
    *,
    family: str,
    source: str,
    targets: tuple[str, ...],
    tag: str,
    profiles: tuple[str, ...],
    precision: str,
    options: tuple[str, ...],
) -> None:
    """Export a model with a family's plugin, build a plan for every target, and publish them under a tag.

    Targets are 'portable' (runs anywhere, in ONNX Runtime) and 'rtx-smNN' (TensorRT-RTX for GPUs of that compute
    capability; no GPU is needed to build one). Building again keeps what still fits and builds the rest.

    \b
    A profile gives the shapes of dynamic inputs as min:opt:max, or as one shape:
      --profile "images=1x3x320x320:1x3x640x640:4x3x640x640"
      --profile "ids=1x8:1x64:4x512,mask=1x8:1x64:4x512"

    \b
    Examples:
      wszoo build onnx --source model.onnx --target portable,rtx-sm89 --tag mine:1.0
      wszoo build cnn --source resnet-50/ --precision fp16 --target rtx-sm86,rtx-sm89 --tag resnet:1.0
    """
    from wszoo.describe import show

    zoo = session.zoo()
    report = zoo.build(
        family,
        source,
        tag=tag,
        targets=[target for part in targets for target in part.split(",") if target],
        profiles=profiles,
        precision=precision,
        options=pairs(options, "--option"),
    )
    view = show(zoo.store, report.ref)
    if session.as_json:
        names = {"built": report.built, "kept": report.kept}
        plans = {
            name: [f"{plan.config.component} {plan.config.target.name}" for plan in found]
            for name, found in names.items()
        }
        print_json({**plans, "new_weight_bytes": report.new_weight_bytes, "model": view})
        return
    hint(
        f"built {len(report.built)} plans, kept {len(report.kept)}; "
        f"{human(report.new_weight_bytes)} of weights were new to the store"
    )
    print_model(view)
