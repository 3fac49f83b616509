"""Off-policy estimators on the Open Bandit Dataset (men, women): estimated value of a policy against its logged click rate.

    python benchmarks/off_policy_obd.py data/clicks_obd OUT

DATA holds `{random,bts}_{men,women}.csv.gz`; a row is an impression of an item at a place (Saito et al.,
arXiv:2008.07146). Two policies, `random` and `bts` (Bernoulli Thompson sampling), were served side by side for one week.
Each is evaluated from the log of the other. The click rate of its own log is the truth, with an interval of its own.

The evaluated policy must be independent of the truth:

- `random` shows every item with probability 1 / items. It is evaluated on the whole bts log, which has propensities. The
  truth is the whole random log.
- `bts` learns over time, and the log has the propensity of the shown item only. The policy does not depend on the shopper,
  so its mean over the week is one distribution a place. This distribution is estimated as the share of each item at each
  place, from every fourth row of the bts log (items and places, never clicks). The truth is the click rate of the other
  three quarters, since shares need fewer rows than click rates. The sampling error of the shares is reported as
  `policy_error`; no interval contains it. A mean over time assumes that tastes did not change within the week. Every use
  of a logged propensity for a later policy assumes the same.

Users are unknown, so intervals are over impressions. At a click rate of 0.5 % a log has 27 to 59 clicks: an interval
reaches half of the value to either side, and further with weights.

These choices were fixed before any estimate was computed: every fourth row; clipping at sqrt(n); the reward model
(logistic regression on item and place with scikit-learn's default penalty, 5 folds); the estimators. `covers`: the interval
contains the logged rate. `agrees`: the interval of the difference contains 0 (Zou & Donner 2008), since the logged rate is
itself uncertain. `log's own rate` assumes that both policies are equal: if it covers too, the data cannot distinguish the
policies.

OUT receives `off_policy_obd.json` and `off_policy_obd.md`.

Duration on 2 cores: a few minutes (estimate), for the small version of the dataset (8,500 impressions a log).
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

CAMPAIGNS = ("men", "women")
POLICY_ROWS = 4
FOLDS = 5
REFITS = 200


class Impressions(NamedTuple):
    """A log in the order of time: item, place (from 0) int64 [n]; click, propensity float64 [n]."""

    item: np.ndarray
    place: np.ndarray
    click: np.ndarray
    propensity: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the dataset")
    parser.add_argument("out", type=Path, help="folder of the results")
    options = parser.parse_args()
    comparisons = []
    for campaign in CAMPAIGNS:
        logs = {policy: read(options.data / f"{policy}_{campaign}.csv.gz") for policy in ("random", "bts")}
        n_items = int(max(log.item.max() for log in logs.values())) + 1
        comparisons += [{"campaign": campaign, "items": n_items, **evaluate_bts(logs, n_items)}]
        comparisons += [{"campaign": campaign, "items": n_items, **evaluate_random(logs, n_items)}]
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": {"platform": platform.platform(), "python": platform.python_version()},
        "versions": {name: version(name) for name in ("numpy", "scikit-learn")},
        "comparisons": comparisons,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(finite(result), indent=1, allow_nan=False)
    (options.out / "off_policy_obd.json").write_text(text + "\n")
    (options.out / "off_policy_obd.md").write_text(table(result))
    print(table(result))


def read(path: Path) -> Impressions:
    from pyarrow import csv

    columns = ["item_id", "position", "click", "propensity_score"]
    rows = csv.read_csv(path, convert_options=csv.ConvertOptions(include_columns=columns)).to_pydict()
    item, place, click, propensity = (np.array(rows[name]) for name in columns)
    return Impressions(item, place - 1, click.astype(np.float64), propensity.astype(np.float64))


def evaluate_bts(logs: dict[str, Impressions], n_items: int) -> dict[str, Any]:
    """`bts` from the random log."""
    from shoplens.search.lists.off_policy import require_support

    bts = logs["bts"]
    of_policy = np.arange(len(bts.item)) % POLICY_ROWS == 0
    shown = np.zeros((bts.place.max() + 1, n_items))
    np.add.at(shown, (bts.place[of_policy], bts.item[of_policy]), 1)
    policy = shown / shown.sum(axis=1, keepdims=True)
    require_support(policy, np.full_like(policy, 1 / n_items))
    random = logs["random"]
    click_rate = np.zeros_like(policy)
    np.add.at(click_rate, (random.place, random.item), random.click * n_items / np.bincount(random.place)[random.place])
    error = click_rate[bts.place[of_policy], bts.item[of_policy]].std() / math.sqrt(of_policy.sum())
    return {
        "evaluated": "bts",
        "log": "random",
        "policy_rows": int(of_policy.sum()),
        "policy_error": float(error),
        **compare(random, policy, bts.click[~of_policy]),
    }


def evaluate_random(logs: dict[str, Impressions], n_items: int) -> dict[str, Any]:
    """`random` from the bts log."""
    bts = logs["bts"]
    policy = np.full((bts.place.max() + 1, n_items), 1 / n_items)
    never = n_items * len(policy) - len(np.unique(bts.place * n_items + bts.item))
    figures = compare(bts, policy, logs["random"].click)
    return {"evaluated": "random", "log": "bts", "items_at_places_never_logged": int(never), **figures}


def compare(log: Impressions, policy: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Every estimator's value of `policy` [places, items] on `log`, against the clicks `truth` [n] of the policy's own log."""
    from shoplens.search.lists.off_policy import (
        Log,
        cross_fitted,
        direct,
        doubly_robust,
        expected_reward,
        folds,
        inverse_propensity,
        self_normalised,
    )
    from shoplens.statistics.bootstrap import interval

    n = len(log.click)
    rows = np.arange(n)
    logged = Log(log.click, log.propensity, policy[log.place, log.item])

    def learn(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return reward_model(log, train, policy.shape)[log.place[test]]

    predicted = cross_fitted(learn, folds(n, FOLDS))
    expected = expected_reward(policy[log.place], predicted)
    at_logged = predicted[rows, log.item]
    clip = math.sqrt(n)
    estimates = {
        "log's own rate": direct(log.click),
        "direct": direct(expected),
        "IPS": inverse_propensity(logged),
        "IPS, clipped": inverse_propensity(logged, clip=clip),
        "SNIPS": self_normalised(logged),
        "SNIPS, clipped": self_normalised(logged, clip=clip),
        "doubly robust": doubly_robust(logged, at_logged, expected),
        "doubly robust, clipped": doubly_robust(logged, at_logged, expected, clip=clip),
    }
    rate = float(truth.mean())
    bounds = interval(truth, np.arange(len(truth)))
    return {
        "impressions": n,
        "clicks": int(log.click.sum()),
        "truth": {"value": rate, "interval": bounds, "n": len(truth), "clicks": int(truth.sum())},
        "estimates": {
            name: {
                "value": one.value,
                **{
                    kind: {
                        "interval": span,
                        "covers": bool(span[0] <= rate <= span[1]),
                        "agrees": agrees(one.value, span, rate, bounds),
                    }
                    for kind, span in intervals(name, one, log, policy).items()
                },
                "effective": one.effective,
                "largest_weight": one.largest_weight,
                "mean_weight": one.mean_weight,
                "cut": one.cut,
            }
            for name, one in estimates.items()
        },
    }


def reward_model(log: Impressions, rows: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Click probabilities [places, items] of a logistic regression on item and place, fitted on `rows` of the log."""
    from sklearn.linear_model import LogisticRegression

    def features(place: np.ndarray, item: np.ndarray) -> np.ndarray:
        return np.concatenate([np.eye(shape[0])[place], np.eye(shape[1])[item]], axis=1)

    model = LogisticRegression(max_iter=1000)
    model.fit(features(log.place[rows], log.item[rows]), log.click[rows])
    place, item = np.indices(shape)
    return model.predict_proba(features(place.ravel(), item.ravel()))[:, 1].reshape(shape)


def intervals(name: str, estimate: Any, log: Impressions, policy: np.ndarray) -> dict[str, tuple[float, float]]:
    """Intervals of an estimate by kind. The direct method has percentiles only; each draw fits its model again."""
    from shoplens.statistics.bootstrap import percentiles

    if name != "direct":
        return {"percentile": estimate.interval, "studentised": estimate.studentised}
    rng = np.random.default_rng(0)
    share = np.bincount(log.place) / len(log.place)
    drawn = rng.integers(len(log.click), size=(REFITS, len(log.click)))
    values = [share @ (policy * reward_model(log, rows, policy.shape)).sum(axis=1) for rows in drawn]
    return {"percentile": percentiles(np.array(values))}


def agrees(value: float, span: tuple[float, float], truth: float, bounds: tuple[float, float]) -> bool:
    """Whether the interval of value - truth, from the intervals of both (Zou & Donner 2008), contains 0."""
    low = value - truth - math.hypot(value - span[0], bounds[1] - truth)
    high = value - truth + math.hypot(span[1] - value, truth - bounds[0])
    return low <= 0 <= high


def finite(value: Any) -> Any:
    """The same tree with None for numbers that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(result: dict[str, Any]) -> str:
    """Markdown: clicks in 1,000 impressions. Bold intervals cover the logged rate; those with a star do not agree with it."""
    lines = [
        f"`{result['command']}`",
        "",
        "Clicks in 1,000 impressions with 95 % intervals. Bold: the interval contains the logged rate. With a star: it differs",
        "from the logged rate by more than the noise of both.",
        "",
        "| campaign, policy | estimator | value | percentiles | studentised | effective | largest weight | mean weight |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in result["comparisons"]:
        truth = one["truth"]
        lines.append(
            f"| {one['campaign']}, {one['evaluated']} from {one['log']} | logged: {truth['clicks']} clicks of {truth['n']:,} "
            f"| {1000 * truth['value']:.2f} | {span_cell(truth['interval'])} | | | | |"
        )
        for name, estimate in one["estimates"].items():
            weights = "| | | "
            if name not in ("direct", "log's own rate"):
                weights = f"| {estimate['effective']:,.0f} | {estimate['largest_weight']:,.1f} | {estimate['mean_weight']:.2f} "
            spans = [estimate.get(kind) for kind in ("percentile", "studentised")]
            lines.append(
                f"| | {name} | {1000 * estimate['value']:.2f} | {' | '.join(map(interval_cell, spans))} {weights}|"
            )
    return "\n".join([*lines, ""])


def interval_cell(figures: dict[str, Any] | None) -> str:
    if figures is None:
        return ""
    cell = span_cell(figures["interval"])
    return f"**{cell}**" if figures["covers"] else cell + ("" if figures["agrees"] else " *")


def span_cell(span: tuple[float, float]) -> str:
    return " to ".join("unbounded" if not math.isfinite(end) else f"{1000 * end:.2f}" for end in span)


if __name__ == "__main__":
    main()
