"""Error rates and power of the tests of `shoplens.experiments.analysis`, against their nominal values.

    python benchmarks/ab_simulation.py OUT [--experiments 10000] [--seed 7]

The experiments are simulated. The expected results are:

- Without an effect, every test rejects in 5 % of the experiments.
- With repeated looks, sequential intervals reject in at most 5 %; fixed intervals reject more often.
- A true lift is detected with the planned power.

Shoppers differ in how much they browse (gamma) and how easily they click (beta), so page views of one shopper are not
independent. Spend is log-normal. The pre-period is drawn from the same shoppers.

OUT receives `ab_simulation.json` and `ab_simulation.md`: rates with 95 % Clopper-Pearson intervals.

Duration at the default size: 2 to 4 minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from scipy import stats

from shoplens.experiments.analysis import (
    Estimate,
    Moments,
    estimate,
    fixed,
    moments,
    power,
    sample_ratio,
    sequential,
    users_needed,
)
from shoplens.experiments.assignment import Arm, Assignment

ALPHA = 0.05
LIFT = 0.02
MARGIN = 0.05
AT_ONCE = 1 << 19
"""Users of one arm in one chunk of the simulation."""
USERS = 1000
"""Users of an arm in experiments without an effect."""
LOOKS, BLOCK = 50, 40
"""LOOKS looks, one after every BLOCK users of an arm."""


def shoppers(
    rng: np.random.Generator, shape: tuple[int, ...], lift: float = 0.0, times: tuple[str, ...] = ("", "_before")
) -> dict[str, np.ndarray]:
    """Counts of each user as in `experiments.outcomes`; those of the pre-period end in `_before`."""
    browsing, taste = rng.gamma(2, 1, shape), rng.beta(3, 27, shape)
    counts: dict[str, np.ndarray] = {"users": np.ones(shape)}
    for when in times:
        clicks_well = taste * (1 if when else 1 + lift)
        views = counts[f"views{when}"] = 1.0 + rng.poisson(3 * browsing)
        impressions = counts[f"impressions{when}"] = 6 * views
        counts[f"clicks{when}"] = rng.binomial(impressions.astype(np.int64), clicks_well).astype(np.float64)
        seen = 1 - (1 - clicks_well) ** 6
        counts[f"clicked_views{when}"] = rng.binomial(views.astype(np.int64), seen).astype(np.float64)
        bought = rng.binomial(counts[f"clicks{when}"].astype(np.int64), 0.15)
        counts[f"bought_clicks{when}"] = bought.astype(np.float64)
        counts[f"bought{when}"] = np.minimum(bought, 1.0)
        counts[f"spend{when}"] = bought * rng.lognormal(3, 1, shape)
    counts["users_before"] = counts["users"]
    return counts


RATIOS = {
    "ctr": ("clicks", "impressions"),
    "page_ctr": ("clicked_views", "views"),
    "cvr": ("bought_clicks", "clicks"),
    "buyers": ("bought", "users"),
    "spend": ("spend", "users"),
}


def compare(treatment: dict[str, np.ndarray], control: dict[str, np.ndarray], ratio: str, before: bool) -> Estimate:
    names = [*RATIOS[ratio], *(f"{name}_before" for name in RATIOS[ratio] if before)]
    return estimate(*(moments(np.stack([arm[name] for name in names], axis=-1)) for arm in (treatment, control)))


def chunks(experiments: int, users: int) -> Iterator[int]:
    """Experiments to simulate at once."""
    step = max(1, AT_ONCE // users)
    for start in range(0, experiments, step):
        yield min(step, experiments - start)


def nothing_planted(rng: np.random.Generator, experiments: int) -> dict[str, int]:
    """Rejections of each test of equal arms, and of non-inferiority of an arm that is worse by exactly its margin."""
    rejected: dict[str, int] = {}

    def count(name: str, p: np.ndarray, level: float = ALPHA) -> None:
        rejected[name] = rejected.get(name, 0) + int((p < level).sum())

    for n in chunks(experiments, USERS):
        control, same = (shoppers(rng, (n, USERS)) for _ in range(2))
        worse = shoppers(rng, (n, USERS), lift=-MARGIN)
        for ratio in RATIOS:
            for before, how in ((False, ""), (True, ", CUPED")):
                effect = compare(same, control, ratio, before)
                count(f"{ratio}{how}", fixed(effect).p)
                if ratio == "ctr":
                    low, high = fixed(effect).lift_low, fixed(effect).lift_high
                    count(f"{ratio}{how}, interval of the lift", np.where((low > 0) | (high < 0), 0, 1))
        for before, how in ((False, ""), (True, ", CUPED")):
            effect = compare(worse, control, "ctr", before)
            count(f"ctr, non-inferiority at its margin{how}", effect.non_inferiority(MARGIN))
    return rejected


def one_covers_less(rng: np.random.Generator, experiments: int) -> dict[str, int]:
    """Rejections if one arm shows nothing on 40 % of the pages, those of products with half the click rate.

    The arms are equal on the other pages, so only the ratio matched by page is a true null.
    """
    rejected = {"matched_ctr where coverage differs": 0, "(ctr where coverage differs, which is no null)": 0}
    for n in chunks(experiments, USERS):
        arms = []
        for covers_all in (True, False):
            counts = shoppers(rng, (n, USERS), times=("",))
            rare = rng.binomial(counts["views"].astype(np.int64), 0.4)
            common = counts["views"] - rare
            taste = rng.beta(3, 27, rare.shape)
            on_common = rng.binomial((6 * common).astype(np.int64), taste)
            on_rare = rng.binomial(6 * rare, taste / 2) if covers_all else 0
            arms.append((on_common, 6 * common, on_common + on_rare, 6 * (counts["views"] if covers_all else common)))
        for name, first in zip(rejected, (0, 2), strict=True):
            effect = estimate(*(moments(np.stack(arm[first : first + 2], axis=-1).astype(np.float64)) for arm in arms))
            rejected[name] += int((fixed(effect).p < ALPHA).sum())
    return rejected


def assigned(rng: np.random.Generator, experiments: int) -> dict[str, int]:
    """Alarms of the sample-ratio test on users that the hash assigns, with another salt for every experiment."""
    rejected = 0
    for _ in range(experiments):
        arms = (Arm(name="champion", share=0.7), Arm(name="challenger", share=0.3))
        assignment = Assignment(salt=str(rng.integers(1 << 62)), arms=arms)
        first = int(rng.integers(1 << 40))
        taken = sum(assignment.arm(str(first + user)) == "challenger" for user in range(USERS))
        rejected += int(sample_ratio(np.array([USERS - taken, taken]), np.array([0.7, 0.3])).p < ALPHA)
    return {"sample ratio of assigned users": rejected}


def binomially_assigned(rng: np.random.Generator, experiments: int) -> dict[str, int]:
    """Alarms of the sample-ratio test on a million users."""
    taken = rng.binomial(1_000_000, 0.3, experiments)
    p = sample_ratio(np.stack([1_000_000 - taken, taken], axis=-1), np.array([0.7, 0.3])).p
    return {"sample ratio of a million users": int((p < ALPHA).sum())}


def sums(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums [..., k] and sums of products [..., k, k] of values [..., n, k]."""
    return values.sum(axis=-2), np.swapaxes(values, -1, -2) @ values


def running(blocks: np.ndarray) -> Moments:
    """Moments of all users up to each look, from blocks [experiments, looks, block, k]."""
    first, second = (np.cumsum(part, axis=1) for part in sums(blocks))
    n = blocks.shape[2] * np.arange(1, blocks.shape[1] + 1)
    mean = first / n[:, None]
    covariance = (second - n[:, None, None] * mean[..., :, None] * mean[..., None, :]) / (n - 1)[:, None, None]
    return Moments(n, mean, covariance)


def peeked(
    rng: np.random.Generator,
    experiments: int,
    draw: Callable[[np.random.Generator, int], Moments],
    planned: float,
    first: int,
) -> dict[str, int]:
    """Rejections without an effect: at any look from `first` on, and at the last look."""
    rejected = {"sequential intervals, any look": 0, "fixed intervals, any look": 0, "fixed intervals, last look": 0}
    for n in chunks(experiments, LOOKS * BLOCK):
        effect = estimate(draw(rng, n), draw(rng, n))
        by_fixed, by_sequential = fixed(effect).p < ALPHA, sequential(effect, planned).p < ALPHA
        rejected["sequential intervals, any look"] += int(by_sequential[:, first:].any(axis=1).sum())
        rejected["fixed intervals, any look"] += int(by_fixed[:, first:].any(axis=1).sum())
        rejected["fixed intervals, last look"] += int(by_fixed[:, -1].sum())
    return rejected


def arriving(ratio: str) -> Callable[[np.random.Generator, int], Moments]:
    """Draws arms whose users come once; a look after every BLOCK of them."""

    def draw(rng: np.random.Generator, n: int) -> Moments:
        counts = shoppers(rng, (n, LOOKS, BLOCK), times=("",))
        return running(np.stack([counts[name] for name in RATIOS[ratio]], axis=-1))

    return draw


def returning(rng: np.random.Generator, n: int) -> Moments:
    """Moments of 10 * BLOCK users who come every day; a look a day, at the totals of each user."""
    users = 10 * BLOCK
    browsing, taste = (part[..., None] for part in (rng.gamma(2, 0.5, (n, users)), rng.beta(3, 27, (n, users))))
    views = np.cumsum(rng.poisson(browsing, (n, users, LOOKS)), axis=-1)
    daily = np.diff(views, axis=-1, prepend=0)
    clicks = np.cumsum(rng.binomial(6 * daily, taste), axis=-1)
    return moments(np.stack([clicks, 6.0 * views], axis=-1).swapaxes(1, 2))


def planted(rng: np.random.Generator, experiments: int) -> list[dict[str, object]]:
    """Detection rates of a lift of LIFT in clicks per impression, with as many users as `users_needed` asks for."""

    def keen(shape: tuple[int, ...], lift: float) -> np.ndarray:
        """Shoppers with a high click rate, so that few are needed: [..., 4], clicks and impressions, then both before."""
        often, taste = rng.gamma(20, 6, shape), rng.beta(60, 90, shape)
        columns = []
        for one in (lift, 0.0):
            seen = 1 + rng.poisson(often)
            columns += [rng.binomial(seen, taste * (1 + one)), seen]
        return np.stack(columns, axis=-1).astype(np.float64)

    pilot = [moments(keen((200_000,), 0.0)) for _ in range(2)]
    rows = []
    for title, k, looks, share in (
        ("fixed", 2, "one", 0.5),
        ("fixed, CUPED", 4, "one", 0.5),
        ("fixed, CUPED, a quarter of the users", 4, "one", 0.25),
        ("sequential, CUPED, one look", 4, "any", 0.5),
    ):
        spread = float(estimate(pilot[0].first(k), pilot[1].first(k)).spread)
        users = users_needed(LIFT, spread, 0.8, share=share, looks=looks)
        treated = round(share * users)
        detected = 0
        for n in chunks(experiments, max(treated, users - treated)):
            arms = [moments(keen((n, size), lift)) for size, lift in ((treated, LIFT), (users - treated, 0.0))]
            effect = estimate(arms[0].first(k), arms[1].first(k))
            p = fixed(effect).p if looks == "one" else sequential(effect, LIFT).p
            detected += int(((p < ALPHA) & (effect.difference > 0)).sum())
        stated = power(users, LIFT, spread, share=share, looks=looks)
        rows.append({"test": title, "users": users, "stated": stated, **rate(detected, experiments)})
    return rows


def rate(count: int, experiments: int) -> dict[str, float]:
    """The share with its 95 % Clopper-Pearson interval."""
    low, high = stats.binomtest(count, experiments).proportion_ci(0.95, "exact")
    return {"rate": count / experiments, "low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("--experiments", type=int, default=10_000, help="simulated experiments of each kind")
    parser.add_argument("--seed", type=int, default=7, help="seed of all draws")
    options = parser.parse_args()
    n, rng, began = options.experiments, np.random.default_rng(options.seed), time.monotonic()

    counted: dict[str, dict[str, float]] = {}
    for part in (nothing_planted, one_covers_less, assigned, binomially_assigned):
        of = max(1, n // 10) if part is assigned else n
        counted |= {name: {"experiments": of, **rate(count, of)} for name, count in part(rng, of).items()}
        print(f"{part.__name__}: {time.monotonic() - began:.0f} s", flush=True)
    peeks = {}
    fewer = max(1, n // 4)
    for title, draw, planned, first, of in (
        ("ctr, users who come once", arriving("ctr"), 0.1, 5, n),
        ("spend, users who come once", arriving("spend"), 0.3, 5, n),
        ("ctr, users who come back", returning, 0.1, 0, fewer),
    ):
        rejected = peeked(rng, of, draw, planned, first)
        peeks[title] = {name: {"experiments": of, **rate(count, of)} for name, count in rejected.items()}
        print(f"{title}: {time.monotonic() - began:.0f} s", flush=True)
    powers = planted(rng, n)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform()},
        "seconds": round(time.monotonic() - began),
        "seed": options.seed,
        "without_effect": counted,
        "looks": {"of": LOOKS, "users_between": BLOCK, "rates": peeks},
        "planted": {"lift": LIFT, "experiments": n, "rows": powers},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    write(options.out / "ab_simulation.json", json.dumps(result, indent=1) + "\n")
    page = markdown(result)
    write(options.out / "ab_simulation.md", page)
    print(page)


def markdown(result: dict) -> str:
    def cells(one: dict[str, float]) -> str:
        return f"{100 * one['rate']:.2f} % ({100 * one['low']:.2f} to {100 * one['high']:.2f})"

    lines = [f"`{result['command']}`", ""]
    lines += ["Share of the experiments that reject at 5 %, with its 95 % binomial interval.", ""]
    lines += ["| without an effect | experiments | rejected |", "| --- | --- | --- |"]
    lines += [f"| {name} | {one['experiments']:,} | {cells(one)} |" for name, one in result["without_effect"].items()]
    looks = result["looks"]
    lines += [
        "",
        f"| without an effect, {looks['of']} looks | experiments | sequential, any look | fixed, any look | fixed, last look |",
    ]
    lines += ["| --- | --- | --- | --- | --- |"]
    for title, rates in looks["rates"].items():
        experiments = next(iter(rates.values()))["experiments"]
        lines.append(f"| {title} | {experiments:,} | {' | '.join(cells(one) for one in rates.values())} |")
    lines += [
        "",
        f"| lift of {100 * result['planted']['lift']:.0f} % in ctr | users, both arms | planned power | detected |",
    ]
    lines += ["| --- | --- | --- | --- |"]
    lines += [
        f"| {row['test']} | {row['users']:,} | {100 * row['stated']:.1f} % | {cells(row)} |"
        for row in result["planted"]["rows"]
    ]
    return "\n".join(lines) + "\n"


def write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text)
    os.replace(aside, path)


if __name__ == "__main__":
    main()
