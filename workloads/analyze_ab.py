"""Compares two arms of an experiment from its event log: effects, checks, a verdict and what to do next.

`key=value` changes the plan: `primary=ctr planned_lift=0.01 surface=similar share=0.1 margins.spend=0.03 looks=one`.
Settle it before the first look. OUT gets `analysis.json` and `report.html`.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from shoplens.experiments.verdict import Analysis

from workloads.job import parse, parser, run, storage


def main() -> None:
    arguments = parser("workloads.analyze_ab", __doc__)
    arguments.add_argument("log", help="root of the event log")
    arguments.add_argument("--control", required=True, help="the arm that is compared against, such as champion")
    arguments.add_argument("--treatment", required=True, help="the arm that is judged, such as challenger")
    arguments.add_argument("--experiment", help="its name; needed if the log holds several")
    arguments.add_argument("--before", metavar="LOG", help="event log of the time before, for CUPED")
    arguments.add_argument("--out", help="folder of the results (default: .shoplens/experiments/EXPERIMENT)")
    given = parse(arguments)

    from rich.console import Console

    from shoplens.config import override, validate
    from shoplens.errors import ShoplensError
    from shoplens.experiments.event_log import read
    from shoplens.experiments.report import render
    from shoplens.experiments.verdict import Plan, advice, analyze, sentence
    from shoplens.schema import slug

    if "=" in given.log:
        raise ShoplensError("name the log first: the folder that holds the writers' folders")
    arms = {"control": given.control, "treatment": given.treatment, "experiment": given.experiment}
    margins = Plan.model_fields["margins"].default
    plan = validate(Plan, override({"margins": margins, **arms}, given.assignments), "the plan")
    found = analyze(read(given.log), plan, read(given.before) if given.before else None)
    again = shlex.join(["python", "-m", "workloads.analyze_ab", *sys.argv[1:]])
    then = advice(found, again)
    out = Path(given.out) if given.out else storage() / "experiments" / slug(found.experiment)
    try:
        out.mkdir(parents=True, exist_ok=True)
        result = {**found.to_json(), "said": sentence(found), "next": then._asdict()}
        write(out / "analysis.json", json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
        write(out / "report.html", render(found, then))
    except OSError as error:
        raise ShoplensError(f"the results cannot be written to {out}: {error}; name a folder with --out") from error
    console = Console(highlight=False)
    control, treatment = found.users
    console.print(
        f"{found.experiment}: {treatment:,} users of {plan.treatment} against {control:,} of {plan.control}, "
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
    run(main)
