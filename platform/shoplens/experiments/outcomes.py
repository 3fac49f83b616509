"""Outcomes of users from logged events: the counts that metrics are ratios of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoplens.errors import ShoplensError


class Metric(NamedTuple):
    """A ratio of two of `Outcomes.counts`. `before`: counts before the experiment that predict the metric (CUPED)."""

    name: str
    title: str
    numerator: str
    denominator: str
    before: tuple[str, str]


METRICS = (
    Metric("page_ctr", "page views with a click", "clicked_views", "views", ("clicked_views", "views")),
    Metric("ctr", "clicks per impression", "clicks", "impressions", ("clicks", "impressions")),
    Metric(
        "matched_ctr", "clicks per impression, seeds of both arms", "matched_clicks", "matched_impressions",
        ("clicks", "impressions"),
    ),
    Metric("cvr", "clicks that led to a purchase", "bought_clicks", "clicks", ("bought_clicks", "clicks")),
    Metric("buyers", "users who bought", "bought", "users", ("bought", "users")),
    Metric("spend", "spend per user", "spend", "users", ("spend", "users")),
    Metric("whole_page_ctr", "page views with a click in any slot", "clicked_pages", "views", ("clicked_pages", "views")),
    Metric("clicks", "clicks per user", "clicks", "users", ("clicks", "users")),
    Metric("impressions", "impressions per user", "impressions", "users", ("impressions", "users")),
)  # fmt: skip


@dataclass(frozen=True)
class Outcomes:
    """Counts for each user of a log, float64 [n], in the order of `user_id` [n].

    views                page views with an impression in any slot
    clicked_views        page views with a click in the analyzed slot
    clicked_pages        page views with a click in any slot
    impressions, clicks  products shown, and products clicked, in the analyzed slot; each counts once a page view
    bought_clicks        clicks on a product that the user bought at that time or later
    matched_*            impressions and clicks on pages of the given seeds only
    bought               1 if the user bought anything
    spend                sum of all purchases, from any slot
    users                1

    `n_stray_clicks` counts clicks without an impression, which no other count includes.
    """

    user_id: pa.Array
    counts: Mapping[str, np.ndarray]
    n_stray_clicks: int

    def of(self, user_id: pa.Array, name: str) -> np.ndarray:
        """The count `name` of these users [m]; 0 for users who are not in this log."""
        place = pc.fill_null(pc.index_in(user_id, value_set=self.user_id), -1).to_numpy(zero_copy_only=False)
        return np.append(self.counts[name], 0.0)[place]


def outcomes(events: pa.Table, surface: str | None = None, seeds: pa.Array | None = None) -> Outcomes:
    """Counts the outcomes of all users in `events` (columns of `EVENTS`).

    surface   the slot whose clicks and impressions are counted; default: all slots
    seeds     the seed products of the matched counts; default: all

    A click without an impression of its product on its page view counts in `n_stray_clicks` only.
    Raises ShoplensError if purchases have several currencies.
    """
    events = events.combine_chunks()
    user, users = _codes(events["user_id"])
    view = _joint(user, _codes(events["request_id"])[0])
    product = _codes(events["product_id"])[0]
    view_product = _joint(view, product)
    slot = _joint(view_product, _codes(events["surface"])[0])
    time = pc.cast(events["time"], pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy(zero_copy_only=False)
    kind = {name: _where(pc.equal(events["kind"], name)) for name in ("impression", "click", "purchase")}
    here = np.full(len(user), True) if surface is None else _where(pc.equal(events["surface"], surface))
    matched = np.full(len(user), True) if seeds is None else _where(pc.is_in(events["seed_product_id"], seeds))

    n = len(users)
    shown = _first(slot, kind["impression"])
    clicked = _first(slot, kind["click"])
    clicked_shown = clicked[np.isin(slot[clicked], slot[shown])]
    views = _first(view, kind["impression"])

    def count(rows: np.ndarray) -> np.ndarray:
        return np.bincount(user[rows], minlength=n).astype(np.float64)

    def clicked_views(rows: np.ndarray) -> np.ndarray:
        return count(views[np.isin(view[views], view[rows])])

    impressions, clicks = shown[here[shown]], clicked_shown[here[clicked_shown]]
    paid = np.flatnonzero(kind["purchase"])
    counts = {
        "users": np.ones(n),
        "views": count(views),
        "clicked_views": clicked_views(clicks),
        "clicked_pages": clicked_views(clicked_shown),
        "impressions": count(impressions),
        "clicks": count(clicks),
        "matched_impressions": count(impressions[matched[impressions]]),
        "matched_clicks": count(clicks[matched[clicks]]),
        "bought_clicks": count(clicks[_bought_later(_joint(user, product), time, clicks, paid)]),
        "bought": np.minimum(count(paid), 1),
        "spend": np.bincount(user[paid], _amounts(events, paid), minlength=n),
    }
    return Outcomes(users, counts, int((here[clicked]).sum() - len(clicks)))


def arms_of(events: pa.Table, control: str, treatment: str) -> tuple[pa.Array, pa.Array, pa.Array]:
    """The users of the control only, of the treatment only, and of both. Users of both belong to neither arm.

    Raises ShoplensError if an arm has no users; the message names the arms in the log.
    """
    users = {name: pc.unique(events.filter(pc.equal(events["arm"], name))["user_id"]) for name in (control, treatment)}
    if control == treatment:
        raise ShoplensError(f"control and treatment are one arm, {control!r}: name two arms")
    for name, ids in users.items():
        if not len(ids):
            arms = ", ".join(sorted(pc.unique(events["arm"]).to_pylist())) or "none"
            raise ShoplensError(f"no user was logged in the arm {name!r}; the arms in the log: {arms}")
    of_control, of_treatment = users[control], users[treatment]
    both = of_control.filter(pc.is_in(of_control, of_treatment))
    alone = tuple(ids.filter(pc.invert(pc.is_in(ids, both))) for ids in (of_control, of_treatment))
    return alone[0], alone[1], both


def seeds_of_both(events: pa.Table, control: str, treatment: str, surface: str | None = None) -> tuple[pa.Array, int]:
    """The seed products with impressions of both arms in the slot, and the number of seeds with any impression."""
    shown = pc.equal(events["kind"], "impression")
    if surface is not None:
        shown = pc.and_(shown, pc.equal(events["surface"], surface))
    shown = pc.and_(shown, pc.is_valid(events["seed_product_id"]))
    events = events.filter(shown)
    of_control, of_treatment = (
        pc.unique(events.filter(pc.equal(events["arm"], name))["seed_product_id"]) for name in (control, treatment)
    )
    both = of_control.filter(pc.is_in(of_control, of_treatment))
    return both, len(of_control) + len(of_treatment) - len(both)


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Codes [n] of the distinct texts, and the texts."""
    encoded = pa.concat_arrays(column.chunks).dictionary_encode() if column.num_chunks else pa.array([], column.type)
    if not len(encoded):
        return np.zeros(0, np.int64), pa.array([], pa.string())
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def _joint(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Codes [n] of the distinct pairs."""
    return np.unique(a * (b.max(initial=0) + 1) + b, return_inverse=True)[1]


def _where(chosen: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(chosen, False).to_numpy().astype(bool)


def _first(key: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The first chosen row of each key."""
    rows = np.flatnonzero(chosen)
    return rows[np.unique(key[rows], return_index=True)[1]]


def _bought_later(key: np.ndarray, time: np.ndarray, clicks: np.ndarray, paid: np.ndarray) -> np.ndarray:
    """Mask of the clicks with a purchase of the same key (user and product) at the same time or later."""
    last = np.full(key.max(initial=-1) + 1, np.iinfo(np.int64).min)
    np.maximum.at(last, key[paid], time[paid])
    return last[key[clicks]] >= time[clicks]


def _amounts(events: pa.Table, paid: np.ndarray) -> np.ndarray:
    purchases = events.take(paid)
    currencies = sorted(pc.unique(purchases["currency"]).to_pylist())
    if len(currencies) > 1:
        raise ShoplensError(f"purchases are in {', '.join(currencies)}: log every amount in one currency")
    return purchases["amount"].to_numpy()
