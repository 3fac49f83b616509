"""What an experiment says: every metric with its intervals, the checks, and one sentence."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from shoplens.config import Config
from shoplens.errors import ShoplensError
from shoplens.experiments import analysis
from shoplens.experiments.outcomes import METRICS, Metric, Outcomes, arms_of, outcomes, seeds_of_both
from shoplens.statistics.bootstrap import divide

Kind = Literal["broken", "early", "better", "worse", "guardrail", "open"]


class Plan(Config):
    """What was settled before the first look.

    share          the treatment's share of the users of both arms
    primary        the metric that decides
    planned_lift   the relative change that is worth finding; the sequential intervals are narrowest for it
    margins        guardrails: metrics that may not drop by more than this share; theirs are narrowest for it
    looks          "any": the sequential intervals decide, at whatever time; "one": the fixed ones
    least_users    of each arm, before anything is said
    alarm          p of the sample ratio below which the experiment is broken
    """

    control: str
    treatment: str
    experiment: str | None = None
    surface: str | None = None
    share: float = Field(0.5, gt=0, lt=1)
    primary: str = "page_ctr"
    planned_lift: float = Field(0.02, gt=0, le=10)
    power: float = Field(0.8, ge=0.1, lt=0.999)
    level: float = Field(0.95, ge=0.5, lt=1)
    margins: dict[str, float] = {"spend": 0.05, "whole_page_ctr": 0.02}
    looks: analysis.Looks = "any"
    least_users: int = Field(500, ge=2)
    alarm: float = Field(1e-3, gt=0, lt=0.1)

    @field_validator("primary")
    @classmethod
    def _is_known(cls, primary: str) -> str:
        if primary not in (names := [metric.name for metric in METRICS]):
            raise ValueError(f"is none of {', '.join(names)}")
        return primary

    @field_validator("margins")
    @classmethod
    def _are_shares(cls, margins: dict[str, float]) -> dict[str, float]:
        for name, margin in margins.items():
            cls._is_known(name)
            if not 0 < margin < 1:
                raise ValueError(f"{name}: {margin} is no margin; it lies between 0 and 1")
        return margins


@dataclass(frozen=True)
class Span:
    """An interval of the lift, and p of "no lift"."""

    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Row:
    """One metric. `saved` is the share of the variance that the time before explained, None without it.

    `users_needed` of both arms together find the planned lift, or a guardrail that holds, with the plan's power.
    `guardrail` says of one with a margin whether it `holds`, is `violated`, or is `open` yet; `non_inferiority` is
    the p of "it dropped by more than the margin" at one look.
    """

    name: str
    title: str
    control: float
    treatment: float
    lift: float
    fixed: Span
    sequential: Span
    spread: float
    saved: float | None
    users_needed: int | None
    margin: float | None = None
    guardrail: Literal["holds", "violated", "open"] | None = None
    non_inferiority: float | None = None


@dataclass(frozen=True)
class Analysis:
    """`users` and `expected` are of control and treatment; `in_both` saw both arms and are left out.

    `users_needed` are those of the metric that takes most among those that are not decided; None if there is none.
    `seeds` are those for which both arms showed something, and all. `snapshots` are the treatment's.
    """

    plan: Plan
    experiment: str
    first: str
    last: str
    users: tuple[int, int]
    expected: tuple[float, float]
    sample_ratio: float
    in_both: int
    stray_clicks: int
    seeds: tuple[int, int]
    snapshots: tuple[str, ...]
    rows: tuple[Row, ...]
    users_needed: int | None
    verdict: Kind

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def decides(self, row: Row) -> Span:
        return row.sequential if self.plan.looks == "any" else row.fixed

    def to_json(self) -> dict[str, Any]:
        """As plain values; None for what is not defined or not bounded."""
        told = asdict(self) | {"plan": self.plan.model_dump(mode="json")}
        return _plain(told)


def analyze(events: pa.Table, plan: Plan, before: pa.Table | None = None) -> Analysis:
    """Compares two arms of one experiment in a log (columns of `EVENTS`).

    before   the users' log of the time before the experiment, for CUPED

    Raises ShoplensError if the log does not hold the experiment, if an arm has no user, or if `before` is not
    before.
    """
    experiment = _only(events, plan.experiment)
    events = events.filter(pc.equal(events["experiment"], experiment))
    control, treatment, both = arms_of(events, plan.control, plan.treatment)
    events = events.filter(pc.is_in(events["arm"], pa.array([plan.control, plan.treatment])))
    events = events.filter(pc.invert(pc.is_in(events["user_id"], both)))
    span = pc.min_max(events["time"]).as_py()
    if before is not None and before.num_rows and (last := pc.max(before["time"]).as_py()) >= span["min"]:
        raise ShoplensError(
            f"the log of the time before ends on {last}, after the experiment began ({span['min']}): "
            "the arms may have changed it already, so that adjusting by it would hide the effect"
        )
    seeds, n_seeds = seeds_of_both(events, plan.control, plan.treatment, plan.surface)
    during = outcomes(events, plan.surface, seeds)
    earlier = outcomes(before, plan.surface) if before is not None and before.num_rows else None
    ratio = analysis.sample_ratio(np.array([len(control), len(treatment)]), np.array([1 - plan.share, plan.share]))
    rows = tuple(
        row for metric in METRICS if (row := _row(metric, during, earlier, control, treatment, plan)) is not None
    )
    broken = bool(ratio.alarm(plan.alarm))
    return Analysis(
        plan=plan,
        experiment=experiment,
        first=span["min"],
        last=span["max"],
        users=(len(control), len(treatment)),
        expected=(float(ratio.expected[0]), float(ratio.expected[1])),
        sample_ratio=float(ratio.p),
        in_both=len(both),
        stray_clicks=during.n_stray_clicks,
        seeds=(len(seeds), n_seeds),
        snapshots=_snapshots(events, plan.treatment),
        rows=rows,
        users_needed=_needed(rows, plan),
        verdict=_verdict(rows, plan, broken, min(len(control), len(treatment))),
    )


def _only(events: pa.Table, experiment: str | None) -> str:
    known = sorted(pc.unique(events["experiment"]).drop_null().to_pylist())
    if not known:
        raise ShoplensError("the log holds no event yet")
    if experiment is None and len(known) > 1:
        raise ShoplensError(f"the log holds several experiments, name one: {', '.join(known[:20])}")
    if experiment is not None and experiment not in known:
        raise ShoplensError(f"the log holds no experiment {experiment!r}; it has {', '.join(known[:20])}")
    return experiment or known[0]


def _row(
    metric: Metric, during: Outcomes, earlier: Outcomes | None, control: pa.Array, treatment: pa.Array, plan: Plan
) -> Row | None:
    """None where an arm has too few users, or nothing to divide by."""

    def values(users: pa.Array) -> np.ndarray:
        columns = [during.of(users, metric.numerator), during.of(users, metric.denominator)]
        if earlier is not None:
            columns += [earlier.of(users, name) for name in metric.before]
        return np.stack(columns, axis=-1)

    arms = [values(users) for users in (treatment, control)]
    if min(map(len, arms)) < 2 or min(arm[:, 1].sum() for arm in arms) == 0:
        return None
    of_treatment, of_control = map(analysis.moments, arms)
    found = analysis.estimate(of_treatment, of_control)
    margin = plan.margins.get(metric.name)
    change = margin or plan.planned_lift
    fixed, sequential = analysis.fixed(found, plan.level), analysis.sequential(found, change, plan.level)
    saved = None
    if earlier is not None:
        plain = analysis.estimate(of_treatment.first(2), of_control.first(2))
        saved = 1 - float(divide(found.standard_error**2, plain.standard_error**2))
    spans = [Span(float(one.lift_low), float(one.lift_high), float(one.p)) for one in (fixed, sequential)]
    decides = spans[1] if plan.looks == "any" else spans[0]
    spread, needed = float(found.spread), None
    if math.isfinite(spread) and spread > 0:
        needed = analysis.users_needed(
            -change if margin else change, spread, plan.power, share=plan.share, level=plan.level, looks=plan.looks
        )
    return Row(
        name=metric.name,
        title=metric.title,
        control=float(found.control),
        treatment=float(found.treatment),
        lift=float(found.lift),
        fixed=spans[0],
        sequential=spans[1],
        spread=spread,
        saved=saved,
        users_needed=needed,
        margin=margin,
        guardrail=None if margin is None else _guard(decides, margin),
        non_inferiority=None if margin is None else float(found.non_inferiority(margin)),
    )


def _guard(span: Span, margin: float) -> Literal["holds", "violated", "open"]:
    return "holds" if span.low > -margin else "violated" if span.high < -margin else "open"


def _verdict(rows: tuple[Row, ...], plan: Plan, broken: bool, users: int) -> Kind:
    """A broken experiment says nothing, and neither does a short one."""
    if broken:
        return "broken"
    primary = next((row for row in rows if row.name == plan.primary), None)
    if users < plan.least_users or primary is None:
        return "early"
    span = primary.sequential if plan.looks == "any" else primary.fixed
    guards = {row.guardrail for row in rows if row.guardrail}
    if span.high < 0:
        return "worse"
    if "violated" in guards:
        return "guardrail"
    known = {row.name for row in rows}
    if span.low > 0 and guards <= {"holds"} and plan.margins.keys() <= known:
        return "better"
    return "open"


def _needed(rows: tuple[Row, ...], plan: Plan) -> int | None:
    undecided = []
    for row in rows:
        span = row.sequential if plan.looks == "any" else row.fixed
        if row.guardrail == "open" or (row.name == plan.primary and span.low <= 0 <= span.high):
            undecided.append(row.users_needed)
    return max((users for users in undecided if users is not None), default=None)


def _snapshots(events: pa.Table, arm: str) -> tuple[str, ...]:
    return tuple(sorted(pc.unique(events.filter(pc.equal(events["arm"], arm))["snapshot"]).drop_null().to_pylist()))


def sentence(found: Analysis) -> str:
    """The verdict in words."""
    plan = found.plan
    if found.verdict == "broken":
        counted, expected = found.users[1], found.expected[1]
        return (
            f"Broken: {counted:,} users in {plan.treatment} where {expected:,.0f} were to be expected "
            f"(p = {found.sample_ratio:.1g}). No effect below is to be believed."
        )
    if found.verdict == "early":
        return f"Too early: the smaller arm has {min(found.users):,} users, and {plan.least_users:,} are the least."
    primary = found.row(plan.primary)
    span = found.decides(primary)
    effect = f"{primary.title} {percent(primary.lift)} ({percent(span.low)} to {percent(span.high)})"
    guards = [row for row in found.rows if row.guardrail in ("violated", "open")]
    if found.verdict == "better":
        return f"{plan.treatment} is better: {effect}, and every guardrail holds."
    if found.verdict == "worse":
        return f"{plan.treatment} is worse: {effect}."
    if found.verdict == "guardrail":
        named = "; ".join(
            f"{row.title} {percent(row.lift)}, margin {percent(-(row.margin or 0))}"
            for row in guards
            if row.guardrail == "violated"
        )
        return f"{plan.treatment} breaks a guardrail: {named}. {effect[:1].upper()}{effect[1:]}."
    waits = f"; guardrails that are open: {', '.join(row.title for row in guards)}" if guards else ""
    return f"Not decided yet: {effect}{waits}."


class Advice(NamedTuple):
    words: str
    command: str


def advice(found: Analysis, again: str) -> Advice:
    """What to do next, and the command to type; `again` is the one that makes this analysis."""
    plan = found.plan
    match found.verdict:
        case "broken":
            words = "Find where users get lost (assignment, logging, bots, redirects); begin anew with a new salt."
            return Advice(words, again)
        case "better":
            name, version = _version(found.snapshots)
            reason = f"A/B {found.experiment}: {plan.primary} {percent(found.row(plan.primary).lift)}"
            command = f"shoplens promote {name} {version} --alias champion --reason {shlex.quote(reason)}"
            return Advice(f"Make {plan.treatment} the champion.", command)
        case "worse" | "guardrail":
            return Advice(f"Give {plan.treatment} a share of 0. Where it lost, slot by slot:", f"{again} surface=SLOT")
        case _:
            more = (found.users_needed or 0) - sum(found.users)
            if more > 0:
                words = f"Wait for about {more:,} more users: a power of {100 * plan.power:.0f} % for what is open."
            else:
                words = "What the plan looks for would probably have been found by now; a later look may still decide."
            return Advice(words, again)


def percent(share: float) -> str:
    """`0.0213` -> `+2.1 %`."""
    return f"{100 * share:+.1f} %" if math.isfinite(share) else "unknown"


def _version(snapshots: tuple[str, ...]) -> tuple[str, str]:
    """`("eclip/3@4f0c", "eclip/3@4f0c+1.91ab")` -> `("eclip", "3")`, else the words that stand for them."""
    versions = {snapshot.partition("@")[0] for snapshot in snapshots}
    named = re.fullmatch(r"([A-Za-z0-9_.-]+)/(\d+)", versions.pop()) if len(versions) == 1 else None
    return (named[1], named[2]) if named else ("MODEL", "VERSION")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
