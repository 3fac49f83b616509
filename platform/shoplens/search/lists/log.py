"""Clicks and impressions of the lists beside a product, from an event log or a dataset's log."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shoplens.errors import ShoplensError

CLICKS = ["seed", "product", "user"]
"""Columns of ids: the product of the page (seed), the clicked product, the user."""
IMPRESSIONS = pa.schema(
    [
        *((name, pa.string()) for name in CLICKS),
        ("position", pa.int32()),
        ("propensity", pa.float64()),
        ("clicked", pa.bool_()),
    ]
)
"""One row a shown product: its place in the list (from 0), its propensity, and whether it was clicked."""
NO_IMPRESSIONS = IMPRESSIONS.empty_table()
_PLACE_OF_PAGE = ["user_id", "request_id", "seed_product_id", "product_id"]


def clicks_of(events: pa.Table, surface: str) -> pa.Table:
    """`CLICKS` in the slot `surface` of product pages, from events (`experiments.events.EVENTS`).

    Repeated clicks on a product in one page view count once.
    """
    clicks = _first(_of_slot(events, "click", surface), _PLACE_OF_PAGE)
    return clicks.select(["seed_product_id", "product_id", "user_id"]).rename_columns(CLICKS)


def consecutive_clicks(interactions: pa.Table, minutes: float) -> pa.Table:
    """`CLICKS` that stand in for clicks on lists: each click with the same user's next click within `minutes`.

    From a log without seeds (`datasets.format.INTERACTIONS`), on any surface. Clicks of one moment count from the top of
    the page down. Two clicks in a row on one product are no pair. Raises ShoplensError if a time cannot be read.
    """
    clicks = interactions.filter(pc.equal(interactions["kind"], "click")).combine_chunks()
    try:
        time = pc.cast(clicks["time"], pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid as error:
        raise ShoplensError(
            f"the times of the log are no ISO 8601 with a zone: {error}; write 2025-04-01T10:00:00Z"
        ) from None
    clicks = clicks.set_column(clicks.column_names.index("time"), "time", time)
    order = pc.sort_indices(clicks, [("user_id", "ascending"), ("time", "ascending"), ("position", "ascending")])
    clicks = clicks.take(order).combine_chunks()
    before, after = clicks.slice(0, max(0, len(clicks) - 1)), clicks.slice(1)
    gap = pc.subtract(after["time"].cast(pa.int64()), before["time"].cast(pa.int64()))
    follows = pc.and_(pc.equal(before["user_id"], after["user_id"]), pc.less_equal(gap, round(minutes * 60e6)))
    pair = pc.and_(follows, pc.not_equal(before["product_id"], after["product_id"]))
    columns = [before["product_id"], after["product_id"], after["user_id"]]
    return pa.table(columns, names=CLICKS).filter(pair)


def impressions_of(events: pa.Table, surface: str) -> pa.Table:
    """`IMPRESSIONS` of the slot `surface` with a known propensity.

    A product counts once at each place of a page view. It is clicked if it was clicked in that page view.
    """
    clicks, shown = (_of_slot(events, kind, surface) for kind in ("click", "impression"))
    known = pc.and_(pc.is_valid(shown["propensity"]), pc.is_valid(shown["position"]))
    shown = _first(shown.filter(known), [*_PLACE_OF_PAGE, "position"])
    clicked = pc.is_in(_joined(shown, _PLACE_OF_PAGE), value_set=_joined(clicks, _PLACE_OF_PAGE))
    columns = [
        *(shown[name] for name in ("seed_product_id", "product_id", "user_id", "position", "propensity")),
        clicked,
    ]
    return pa.table(columns, schema=IMPRESSIONS)


def _of_slot(events: pa.Table, kind: str, surface: str) -> pa.Table:
    here = pc.and_(pc.equal(events["kind"], kind), pc.equal(events["surface"], surface))
    return events.filter(pc.and_(here, pc.is_valid(events["seed_product_id"])))


def _first(events: pa.Table, columns: list[str]) -> pa.Table:
    """The first row of each combination of the columns."""
    codes = _joined(events, columns).dictionary_encode().indices.to_numpy()
    return events.take(pa.array(np.sort(np.unique(codes, return_index=True)[1])))


def _joined(events: pa.Table, columns: list[str]) -> pa.Array:
    """One text a row, joined by a control character that ids do not hold."""
    whole = events.select(columns).combine_chunks()
    texts = [pc.fill_null(whole[name].cast(pa.string()), "") for name in columns]
    joined = pc.binary_join_element_wise(*texts, "\x1f")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
