"""Compares two arms of an experiment from its event log: effects, checks, a verdict and the next step.

Settings change the plan. Fix them before you look at the log for the first time.

| setting | meaning |
| --- | --- |
| `primary=ctr` | the metric that decides; page_ctr by default |
| `planned_lift=0.01` | the relative change worth finding, here 1 %; intervals are narrowest for it |
| `margins.spend=0.03` | a guardrail: spend may not drop by more than 3 % |
| `surface=similar` | analyze this surface only |
| `share=0.1` | the treatment's share of the users of both arms; 0.5 by default |
| `looks=one` | you look once, at the end; by default the verdict holds at any look |

The results are `analysis.json` and `report.html` in OUT.

Example:

    python -m workloads.analyze_ab LOG --control champion --treatment challenger planned_lift=0.02
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workloads.job import Settings, run, storage

if TYPE_CHECKING:
    from rich.table import Table

    from shoplens.experiments.verdict import Analysis


def main(
    log: Annotated[str, typer.Argument(metavar="LOG", help="Root folder of the event log.")],
    settings: Settings,
    control: Annotated[str, typer.Option(metavar="ARM", help="Arm to compare against, such as champion.")],
    treatment: Annotated[str, typer.Option(metavar="ARM", help="Arm to judge, such as challenger.")],
    experiment: Annotated[
        str | None, typer.Option(metavar="NAME", help="Experiment. Needed if the log holds several.")
    ] = None,
    before: Annotated[
        str | None, typer.Option(metavar="LOG", help="Event log of the time before the experiment, for CUPED.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results. Default: .shoplens/experiments/EXPERIMENT.")
    ] = None,
) -> None:
    from rich.console import Console

    from shoplens.config import override, validate
    from shoplens.errors import ShoplensError
    from shoplens.experiments.event_log import read
    from shoplens.experiments.report import render
    from shoplens.experiments.verdict import Plan, advice, analyze, sentence
    from shoplens.schema import slug

    if "=" in log:
        raise ShoplensError("name the log first: the folder that holds the writers' folders")
    arms = {"control": control, "treatment": treatment, "experiment": experiment}
    margins = Plan.model_fields["margins"].default
    plan = validate(Plan, override({"margins": margins, **arms}, settings), "the plan")
    found = analyze(read(log), plan, read(before) if before else None)
    again = shlex.join(["python", "-m", "workloads.analyze_ab", *sys.argv[1:]])
    then = advice(found, again)
    out = out or storage() / "experiments" / slug(found.experiment)
    try:
        out.mkdir(parents=True, exist_ok=True)
        result = {**found.to_json(), "said": sentence(found), "next": then._asdict()}
        write(out / "analysis.json", json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
        write(out / "report.html", render(found, then))
    except OSError as error:
        raise ShoplensError(f"the results cannot be written to {out}: {error}; name a folder with --out") from error
    console = Console(highlight=False)
    controls, treated = found.users
    console.print(
        f"{found.experiment}: {treated:,} users of {plan.treatment} against {controls:,} of {plan.control}, "
        f"sample ratio p {found.sample_ratio:.2g}",
        markup=False,
        soft_wrap=True,
    )
    console.print(table(found))
    console.print(sentence(found), markup=False, style="bold", soft_wrap=True)
    console.print(f"Report: {out / 'report.html'}", markup=False, soft_wrap=True)
    console.print(f"Next: {then.words}", markup=False, soft_wrap=True)
    console.print(f"  {then.command}", markup=False, soft_wrap=True)


def table(found: Analysis) -> Table:
    """A row for each metric: its value in both arms, the lift with its intervals, and the guardrail's state."""
    from rich.table import Table
    from rich.text import Text

    from shoplens.experiments.report import bounds, figure

    shown = Table("", box=None, header_style="dim", padding=(0, 1, 0, 0))
    for heading in ("control", "treatment", "lift %", "at any look", "at one look", "guard"):
        shown.add_column(heading, justify="right", no_wrap=True)
    colours = {"holds": "green", "violated": "red"}
    for row in found.rows:
        shown.add_row(
            row.name,
            figure(row.control),
            figure(row.treatment),
            f"{100 * row.lift:+.1f}",
            *(bounds(span).removesuffix(" %").replace(" % to", " to") for span in (row.sequential, row.fixed)),
            Text(row.guardrail or "", style=colours.get(row.guardrail or "", "")),
        )
    return shown


def write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)


if __name__ == "__main__":
    run(main, __doc__)
