"""Verdict of an experiment: every metric with its intervals, the checks, and one sentence."""

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

FEW_USERS = 200
"""A verdict over fewer users in an arm comes with a warning. In simulated comparisons of a version with itself (A/A), 95 %
intervals at one look excluded "no lift" in 7 % with 10 users an arm, and in 11 % adjusted by an earlier log."""
Kind = Literal["broken", "early", "better", "worse", "guardrail", "open"]


class Plan(Config):
    """Plan of an analysis. Fix it before the first look."""

    control: str = Field(description="Name of the control arm, such as `champion`.")
    treatment: str = Field(description="Name of the arm that is compared with the control.")
    experiment: str | None = Field(
        None, description="Name of the experiment; may be left out if the log holds one experiment only."
    )
    surface: str | None = Field(
        None, description="Slot whose clicks and impressions count, such as `similar`; all slots if left out."
    )
    share: float = Field(0.5, gt=0, lt=1, description="The treatment's share of the users of both arms.")
    primary: str = Field("page_ctr", description="Name of the metric that decides.")
    planned_lift: float = Field(
        0.02,
        gt=0,
        le=10,
        description="Smallest relative change worth detecting: 0.02 is 2 %. Sequential intervals are narrowest for it.",
    )
    power: float = Field(0.8, ge=0.1, lt=0.999, description="Power that `users_needed` is computed for.")
    level: float = Field(0.95, ge=0.5, lt=1, description="Confidence level of the intervals.")
    margins: dict[str, float] = Field(
        {"spend": 0.05, "whole_page_ctr": 0.02},
        description="Guardrails: largest tolerated relative drop by metric, such as `{spend: 0.05}` for 5 %. The "
        "sequential interval of a guardrail is narrowest for its margin.",
    )
    looks: analysis.Looks = Field(
        "any",
        description="Intervals that decide. `any`: the sequential ones, valid at any time. `one`: the fixed ones, "
        "valid for one look at a number of users set beforehand.",
    )
    least_users: int = Field(
        500,
        ge=2,
        description="Users that each arm needs before there is a verdict. Below 200, the verdict carries a warning.",
    )
    alarm: float = Field(
        1e-3, gt=0, lt=0.1, description="The experiment counts as broken if the p of the sample ratio is below this."
    )

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
                raise ValueError(f"{name}: {margin} is no margin; a margin lies between 0 and 1")
        return margins


@dataclass(frozen=True)
class Span:
    """An interval of the lift, and the p of the hypothesis "no lift"."""

    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Row:
    """Results of one metric.

    spread            see `analysis.Estimate.spread`
    saved             share of the variance that the time before the experiment explains, None without such a log
    users_needed      users of both arms together that detect the planned lift, or show that a guardrail holds, with
                      the plan's power
    margin            tolerated drop of a guardrail, None for other metrics
    guardrail         whether the guardrail `holds`, is `violated`, or is still `open`
    non_inferiority   p of the hypothesis "it dropped by more than the margin", at one look
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
    """Results of an experiment.

    first, last       times of the first and last event
    users, expected   counted and expected users of control and treatment
    sample_ratio      p of the sample ratio test
    in_both           users who saw both arms and are left out
    stray_clicks      clicks without an impression
    seeds             seed products with impressions of both arms, and of any arm
    snapshots         index versions of the treatment
    users_needed      the largest need among the undecided metrics, None if there is none
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
        """The results of the metric `name`."""
        return next(row for row in self.rows if row.name == name)

    def decides(self, row: Row) -> Span:
        """The interval that decides by the plan."""
        return row.sequential if self.plan.looks == "any" else row.fixed

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; None for undefined values and infinite bounds."""
        fields = asdict(self) | {"plan": self.plan.model_dump(mode="json")}
        return _plain(fields)


def analyze(events: pa.Table, plan: Plan, before: pa.Table | None = None) -> Analysis:
    """Compares two arms of one experiment in a log (columns of `EVENTS`).

    before   log of the same users from before the experiment, for CUPED

    Raises ShoplensError if the log does not hold the experiment, an arm has no users, or `before` ends after the
    experiment began.
    """
    experiment = _only(events, plan.experiment)
    events = events.filter(pc.equal(events["experiment"], experiment))
    control, treatment, both = arms_of(events, plan.control, plan.treatment)
    events = events.filter(pc.is_in(events["arm"], pa.array([plan.control, plan.treatment])))
    events = events.filter(pc.invert(pc.is_in(events["user_id"], both)))
    span = pc.min_max(events["time"]).as_py()
    if before is not None and before.num_rows and (last := pc.max(before["time"]).as_py()) >= span["min"]:
        raise ShoplensError(
            f"the log of the time before ends on {last}, after the experiment began ({span['min']}): the arms may have "
            "changed it, so adjusting by it could hide the effect. Give a log that ends before the experiment began"
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
    """The results of one metric. None if an arm has fewer than two users, or its denominator is 0."""

    def values(users: pa.Array) -> np.ndarray:
        columns = [during.of(users, metric.numerator), during.of(users, metric.denominator)]
        if earlier is not None:
            columns += [earlier.of(users, name) for name in metric.before]
        return np.stack(columns, axis=-1)

    arms = [values(users) for users in (treatment, control)]
    if min(map(len, arms)) < 2 or min(arm[:, 1].sum() for arm in arms) == 0:
        return None
    of_treatment, of_control = map(analysis.moments, arms)
    effect = analysis.estimate(of_treatment, of_control)
    margin = plan.margins.get(metric.name)
    change = margin or plan.planned_lift
    fixed, sequential = analysis.fixed(effect, plan.level), analysis.sequential(effect, change, plan.level)
    saved = None
    if earlier is not None:
        plain = analysis.estimate(of_treatment.first(2), of_control.first(2))
        saved = 1 - float(divide(effect.standard_error**2, plain.standard_error**2))
    spans = [Span(float(one.lift_low), float(one.lift_high), float(one.p)) for one in (fixed, sequential)]
    decides = spans[1] if plan.looks == "any" else spans[0]
    spread, needed = float(effect.spread), None
    if math.isfinite(spread) and spread > 0:
        needed = analysis.users_needed(
            -change if margin else change, spread, plan.power, share=plan.share, level=plan.level, looks=plan.looks
        )
    return Row(
        name=metric.name,
        title=metric.title,
        control=float(effect.control),
        treatment=float(effect.treatment),
        lift=float(effect.lift),
        fixed=spans[0],
        sequential=spans[1],
        spread=spread,
        saved=saved,
        users_needed=needed,
        margin=margin,
        guardrail=None if margin is None else _guard(decides, margin),
        non_inferiority=None if margin is None else float(effect.non_inferiority(margin)),
    )


def _guard(span: Span, margin: float) -> Literal["holds", "violated", "open"]:
    return "holds" if span.low > -margin else "violated" if span.high < -margin else "open"


def _verdict(rows: tuple[Row, ...], plan: Plan, broken: bool, users: int) -> Kind:
    """The verdict by the intervals that decide. Broken and early experiments have no other verdict."""
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


def sentence(result: Analysis) -> str:
    """The verdict as one sentence or two, with a warning if an arm has fewer than `FEW_USERS`."""
    said = _sentence(result)
    if result.verdict not in ("broken", "early") and (fewest := min(result.users)) < FEW_USERS:
        said += (
            f" Be careful: the smaller arm has {fewest:,} users. Below {FEW_USERS}, two equal versions are told apart "
            "more often than the level says."
        )
    return said


def _sentence(result: Analysis) -> str:
    plan = result.plan
    if result.verdict == "broken":
        counted, expected = result.users[1], result.expected[1]
        return (
            f"Broken: {counted:,} users in {plan.treatment}, but {expected:,.0f} were expected "
            f"(p = {result.sample_ratio:.1g}). Do not trust any effect below."
        )
    if result.verdict == "early":
        fewest = min(result.users)
        return f"Too early: the smaller arm has {fewest:,} users, but each arm needs at least {plan.least_users:,}."
    primary = result.row(plan.primary)
    span = result.decides(primary)
    effect = f"{primary.title} {percent(primary.lift)} ({percent(span.low)} to {percent(span.high)})"
    guards = [row for row in result.rows if row.guardrail in ("violated", "open")]
    if result.verdict == "better":
        return f"{plan.treatment} is better: {effect}, and every guardrail holds."
    if result.verdict == "worse":
        return f"{plan.treatment} is worse: {effect}."
    if result.verdict == "guardrail":
        named = "; ".join(
            f"{row.title} {percent(row.lift)}, margin {percent(-(row.margin or 0))}"
            for row in guards
            if row.guardrail == "violated"
        )
        return f"{plan.treatment} breaks a guardrail: {named}. {effect[:1].upper()}{effect[1:]}."
    waits = f"; open guardrails: {', '.join(row.title for row in guards)}" if guards else ""
    return f"Not decided yet: {effect}{waits}."


class Advice(NamedTuple):
    """The next step in words, and its command."""

    words: str
    command: str


def advice(result: Analysis, again: str) -> Advice:
    """The next step for a verdict. `again`: the command that repeats this analysis."""
    plan = result.plan
    match result.verdict:
        case "broken":
            words = (
                "Find out where users get lost (assignment, logging, bots, redirects), then restart with a new salt."
            )
            return Advice(words, again)
        case "better":
            name, version = _version(result.snapshots)
            reason = f"A/B {result.experiment}: {plan.primary} {percent(result.row(plan.primary).lift)}"
            command = f"shoplens promote {name} {version} --alias champion --reason {shlex.quote(reason)}"
            return Advice(f"Make {plan.treatment} the champion.", command)
        case "worse" | "guardrail":
            return Advice(
                f"Give {plan.treatment} a share of 0. To see where it lost, analyze slot by slot:",
                f"{again} surface=SLOT",
            )
        case _:
            more = (result.users_needed or 0) - sum(result.users)
            if more > 0:
                power = f"{100 * plan.power:.0f} %"
                words = f"Wait for about {more:,} more users: they decide the open metrics with a power of {power}."
            else:
                words = "A lift of the planned size would probably show by now; a later look may still decide."
            return Advice(words, again)


def percent(share: float) -> str:
    """`0.0213` -> `+2.1 %`."""
    return f"{100 * share:+.1f} %" if math.isfinite(share) else "unknown"


def _version(snapshots: tuple[str, ...]) -> tuple[str, str]:
    """`("eclip/3@4f0c", "eclip/3@4f0c+1.91ab")` -> `("eclip", "3")`. Placeholders if there is no single version."""
    versions = {snapshot.partition("@")[0] for snapshot in snapshots}
    named = re.fullmatch(r"([A-Za-z0-9_.-]+)/(\d+)", versions.pop()) if len(versions) == 1 else None
    return (named[1], named[2]) if named else ("MODEL", "VERSION")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
