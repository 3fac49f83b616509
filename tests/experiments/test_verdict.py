"""Verdicts of whole experiments from their logs, with planted effects, gaps and faults."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shoplens.config import ConfigError, validate
from shoplens.errors import ShoplensError
from shoplens.experiments.events import EVENTS
from shoplens.experiments.report import render
from shoplens.experiments.verdict import Analysis, Plan, advice, analyze, sentence
from tests.experiments.traffic import HOSTILE, traffic


def plan(**given: Any) -> Plan:
    usual = {"control": "old", "treatment": "new", "surface": "similar", "planned_lift": 0.1, "margins": {"spend": 0.3}}
    return validate(Plan, {**usual, **given}, "the plan")


@pytest.fixture(scope="module")
def nothing() -> pa.Table:
    return traffic(0)


@pytest.fixture(scope="module")
def better() -> pa.Table:
    return traffic(1, lift=0.4)


def test_figures_are_those_of_the_log(nothing: pa.Table) -> None:
    found = analyze(nothing, plan())
    shown = nothing.filter((nothing["surface"].to_numpy() == "similar") & (nothing["kind"].to_numpy() == "impression"))
    clicks = nothing.filter(nothing["kind"].to_numpy() == "click")
    for arm, value in (("old", found.row("ctr").control), ("new", found.row("ctr").treatment)):
        rate = (clicks["arm"].to_numpy() == arm).sum() / (shown["arm"].to_numpy() == arm).sum()
        assert value == pytest.approx(rate)
    bought = nothing.filter(nothing["kind"].to_numpy() == "purchase")
    of_old = bought["amount"].to_numpy()[bought["arm"].to_numpy() == "old"]
    assert found.row("spend").control == pytest.approx(of_old.sum() / 1500)
    assert found.users == (1500, 1500)
    assert found.seeds == (20, 20)
    assert found.snapshots == ("eclip/3",)
    assert (found.first[:10], found.last[:10]) == ("2026-03-01", "2026-03-28")


def test_nothing_planted_is_not_decided_and_says_how_many_users_are_missing(nothing: pa.Table) -> None:
    found = analyze(nothing, plan(planned_lift=0.02))
    assert found.verdict == "open"
    assert found.users_needed is not None
    assert found.users_needed > 10_000
    said = advice(found, "python -m again")
    assert f"{found.users_needed - 3000:,} more users" in said.words
    assert said.command == "python -m again"


def test_a_planted_lift_is_found_and_the_command_names_the_version(better: pa.Table) -> None:
    found = analyze(better, plan())
    assert found.verdict == "better"
    assert sentence(found).startswith("new is better: page views with a click +")
    assert advice(found, "again").command.startswith("shoplens promote eclip 3 --alias champion --reason ")
    assert analyze(better, plan(control="new", treatment="old")).verdict == "worse"
    assert analyze(better, plan(margins={"spend": 0.001})).verdict == "open", "an open guardrail blocks the verdict"
    row = found.row("page_ctr")
    assert row.sequential.low < row.fixed.low < row.lift < row.fixed.high < row.sequential.high


def test_a_verdict_over_few_users_carries_a_warning(better: pa.Table) -> None:
    few = analyze(traffic(1, (150, 170), lift=0.4), plan(least_users=100))
    assert few.verdict in ("open", "better") and "the smaller arm has 150 users" in sentence(few)
    assert "the smaller arm has 150 users" in render(few, advice(few, "again"))
    assert "Be careful" not in sentence(analyze(better, plan()))
    early = analyze(traffic(1, (150, 170), lift=0.4), plan())
    assert early.verdict == "early" and "Be careful" not in sentence(early)


@pytest.mark.parametrize(
    ("snapshots", "named"),
    [
        (("eclip/3@4f0c", "eclip/3@4f0c+2.91ab", "eclip/3"), "eclip 3"),
        (("eclip/3@4f0c", "eclip/4@4f0c"), "MODEL VERSION"),
        ((), "MODEL VERSION"),
    ],
)
def test_an_index_that_got_deltas_is_of_one_version(better: pa.Table, snapshots: tuple[str, ...], named: str) -> None:
    found = replace(analyze(better, plan()), snapshots=snapshots)
    assert advice(found, "again").command.startswith(f"shoplens promote {named} --alias champion")


def test_the_look_that_was_planned_decides() -> None:
    slight = traffic(2, lift=0.13)
    found = analyze(slight, plan(looks="any"))
    row = found.row("page_ctr")
    assert row.fixed.low > 0 > row.sequential.low, "a case where the two intervals disagree"
    assert found.verdict == "open"
    assert analyze(slight, plan(looks="one")).verdict == "better"


def test_a_broken_guardrail_outweighs_a_better_metric() -> None:
    found = analyze(traffic(3, lift=0.4, spend=0.4), plan())
    assert found.verdict == "guardrail"
    assert found.row("spend").guardrail == "violated"
    assert "breaks a guardrail: spend per user -" in sentence(found)


def test_users_that_are_lost_break_the_experiment(better: pa.Table) -> None:
    arm, user = better["arm"].to_numpy(), np.char.lstrip(better["user_id"].to_numpy().astype(str), "u").astype(int)
    found = analyze(better.filter((arm == "old") | (user % 8 > 0)), plan())
    assert found.verdict == "broken"
    assert "Do not trust any effect below" in sentence(found)
    assert analyze(better.filter((arm == "old") | (user % 8 > 0)), plan(share=7 / 15)).verdict == "better"


def test_users_who_saw_both_arms_are_left_out_and_counted(nothing: pa.Table) -> None:
    stray = nothing.slice(0, 200)
    other = stray.set_column(stray.schema.get_field_index("arm"), "arm", pa.array(["new"] * 200))
    users = len(set(stray["user_id"].to_pylist()))
    found = analyze(pa.concat_tables([nothing, other]), plan())
    assert found.in_both == users
    assert found.users == (1500 - users, 1500)


def test_coverage_and_relevance_are_told_apart() -> None:
    """The new arm fills every page, the old arm half of them. Products of both arms are equally attractive."""
    found = analyze(traffic(4, covered=(10, 20)), plan())
    assert found.seeds == (10, 20)
    assert found.row("page_ctr").fixed.low > 0.5
    assert found.row("impressions").fixed.low > 0.5
    matched = found.row("matched_ctr")
    assert matched.fixed.low < 0 < matched.fixed.high


def test_the_time_before_narrows_the_intervals(nothing: pa.Table) -> None:
    before = traffic(5, month=2)
    plain, adjusted = analyze(nothing, plan()), analyze(nothing, plan(), before)
    assert plain.row("ctr").saved is None
    saved = adjusted.row("ctr").saved
    assert saved is not None
    assert saved > 0.1
    assert adjusted.row("ctr").fixed.high - adjusted.row("ctr").fixed.low < 0.96 * (
        plain.row("ctr").fixed.high - plain.row("ctr").fixed.low
    )
    with pytest.raises(ShoplensError, match="ends on 2026-03-28.*after the experiment began"):
        analyze(nothing, plan(), nothing)


def test_a_few_users_say_nothing(better: pa.Table) -> None:
    few = better.filter(np.isin(better["user_id"].to_numpy(), ["u0", "u1", "u2", "u2000"]))
    found = analyze(few, plan(alarm=1e-9))
    assert found.verdict == "early"
    assert "the smaller arm has 1 users, but each arm needs at least 500" in sentence(found)
    assert json.dumps(found.to_json(), allow_nan=False)


def test_what_cannot_be_analyzed_is_refused(nothing: pa.Table) -> None:
    with pytest.raises(ShoplensError, match="no event yet"):
        analyze(EVENTS.empty_table(), plan())
    with pytest.raises(ShoplensError, match="no experiment 'x'; it has "):
        analyze(nothing, plan(experiment="x"))
    second = nothing.set_column(
        nothing.schema.get_field_index("experiment"), "experiment", pa.array(["b"] * len(nothing))
    )
    with pytest.raises(ShoplensError, match="several experiments, name one: "):
        analyze(pa.concat_tables([nothing, second]), plan())
    for given, said in (
        ({"primary": "clicks_per_moon"}, "is none of page_ctr, "),
        ({"margins": {"spend": 0}}, "is no margin"),
        ({"margins": {"money": 0.1}}, "is none of page_ctr, "),
        ({"looks": "often"}, "'one' or 'any'"),
    ):
        with pytest.raises(ConfigError, match=said):
            plan(**given)


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_draws_every_interval_and_no_hostile_name_gets_out(better: pa.Table) -> None:
    found = analyze(better, plan())
    parsed = _Tags()
    parsed.feed(render(found, advice(found, f"again {HOSTILE}")))
    names = [tag for tag, _ in parsed.tags]
    assert "script" not in names
    assert HOSTILE in parsed.text
    assert not {"link", "img", "iframe"} & set(names)
    assert not any("href" in given or "src" in given for _, given in parsed.tags)
    assert names.count("svg") == len(found.rows)
    lines = [given for tag, given in parsed.tags if tag == "line"]
    for kind in ("sequential", "fixed"):
        drawn = [(float(one["x1"] or 0), float(one["x2"] or 0)) for one in lines if one["class"] == kind]
        spans = [getattr(row, kind) for row in found.rows if math.isfinite(getattr(row, kind).high)]
        assert len(drawn) == len(spans)
        for (left, right), span in zip(drawn, spans, strict=True):
            assert 0 <= left <= right <= 360
            assert (left > 180) == (span.low > 0)
    assert sentence(found) in parsed.text


def test_the_page_of_an_experiment_without_figures_is_a_page(better: pa.Table) -> None:
    few = better.filter(np.isin(better["user_id"].to_numpy(), ["u0", "u2000"]))
    found: Analysis = analyze(few, plan())
    assert not found.rows
    assert "Too early" in render(found, advice(found, "again"))
