"""``refit``: other weights for plans that take them."""

from __future__ import annotations

import click

from wszoo.cli.common import Session, common_options, complete_refs
from wszoo.cli.output import echo, hint, print_json
from wszoo.text import printable


@click.command("refit")
@click.argument("ref", shell_complete=complete_refs)
@click.option("--weights", required=True, metavar="NEWREF", help="The version whose weights the plans get.")
@common_options
def refit_command(session: Session, *, ref: str, weights: str) -> None:
    """Give a model's plans the weights of another version of it, without building.

    NEWREF gets plans over the same layers, so clients that have them fetch nothing but the new weights. Only plans
    that were built to take other weights can be refitted: targets such as 'trt-sm89.refit'.

    \b
    Example:
      wszoo refit sdxl:1.0 --weights sdxl:1.1
    """
    report = session.zoo().refit(ref, weights=weights)
    if session.as_json:
        plans = [
            {"component": plan.config.component, "target": plan.config.target.name, "digest": plan.descriptor.digest}
            for plan in report.plans
        ]
        left = [
            {"component": plan.config.component, "target": plan.config.target.name, "reason": reason}
            for plan, reason in report.left
        ]
        print_json({"ref": report.ref.tagged, "index_digest": report.ref.digest, "plans": plans, "left": left})
        return
    hint(f"{report.ref.tagged} has {len(report.plans)} more plans")
    for plan in report.plans:
        echo(printable(f"{plan.config.component}: {plan.config.target.name}"))
    for plan, reason in report.left:
        hint(printable(f"left: {plan.config.component}: {plan.config.target.name}: {reason}"))
