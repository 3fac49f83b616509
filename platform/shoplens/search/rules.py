"""Shop rules: which products may be shown, and which listings of one product or photo are shown once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from shoplens.config import Config
from shoplens.search.product_identity import Identifiers
from shoplens.search.products import Products, members

NAMES = ("in_stock", "price", "attributes", "cheapest", "shared_photo", "capped")
"""Rules that a result reports:

in_stock      its stock is known and not zero
price         its price is in the requested range, and in its currency
attributes    it has the requested attributes
cheapest      listings of the same product and variant without a price, or dearer in the same currency, were left out
shared_photo  another result shares a photo with it
capped        more results would share the photo, but the cap removed them
"""


class SameProduct(Config):
    """Settings of product identity: which listings are one product."""

    identifiers: Identifiers = Field(
        (("gtin",), ("brand", "mpn"), ("brand", "model code"), ("브랜드", "모델명")),
        description="Attribute keys that name a product together, the maker's number last, such as brand and mpn. The first "
        "identifier that a listing has whole is its name. Listings of one name are one product, like those of one "
        "catalog. Empty: catalogs alone.",
    )
    variants: tuple[str, ...] = Field(
        ("size", "quantity", "capacity", "사이즈", "수량", "용량"),
        description="Attribute keys, in any case, that make listings of one product different things. Listings that "
        "differ in one of them are all shown, and so is a listing that lacks it.",
    )

    @field_validator("identifiers")
    @classmethod
    def _name_something(cls, identifiers: Identifiers) -> Identifiers:
        if not all(identifiers):
            raise ValueError("an identifier of no attributes names nothing: leave it out")
        return identifiers


class Rules(SameProduct):
    """Rules of a list. The defaults are those of `POST /v1/similar` beside a product."""

    in_stock: bool = Field(True, description="Leave out products whose stock is known and zero.")
    price_min: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Least price, inclusive. Products without a price, or with one in another currency, are left out.",
    )
    price_max: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Greatest price, inclusive. Products without a price, or with one in another currency, are left out.",
    )
    currency: str | None = Field(
        None,
        pattern=r"^[A-Z]{3}$",
        description="Currency of the price range in ISO 4217, such as `KRW`; null: the currency of most prices in the "
        "index.",
    )
    attributes: dict[str, str] = Field(
        {}, description="Required attributes: for each key a value that must be among the product's values."
    )
    seed_catalog: bool = Field(
        True, description="Show other listings of the seed's product. The seed itself is never shown."
    )
    cheapest: bool = Field(
        True,
        description="Of the listings of a product that may be shown, show the cheapest alone; ties by id. A listing "
        "without a price is shown only if none has one. Prices in different currencies are not compared: the cheapest "
        "of each currency is shown.",
    )
    component_cap: int | None = Field(
        None, ge=1, description="Most results of different products that share a photo; null: no limit."
    )

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.price_min is not None and self.price_max is not None and self.price_min > self.price_max:
            raise ValueError(f"the price range {self.price_min:g} to {self.price_max:g} is empty: swap its ends")
        return self


class Shown(NamedTuple):
    """Decisions on p places: `allowed` bool [p], and `cheapest` bool [p] where dearer listings were left out."""

    allowed: np.ndarray
    cheapest: np.ndarray


def shown(products: Products, places: np.ndarray, rules: Rules, seed: int | None = None) -> Shown:
    """Decides which products at these places [p] may be shown beside the product at the place `seed`.

    The cheapest listing of a product's variant, in each currency, is searched for in the whole shop, in any category. The cap of a photo
    group is not applied here, because it depends on the other results.
    """
    allowed = eligible(products, places, rules, seed)
    cheapest = np.zeros(len(places), dtype=bool)
    if rules.cheapest:
        offers = products.offers(rules.variants, rules.identifiers)
        grouped = np.flatnonzero(allowed & (offers.code[places] >= 0))
        codes = np.unique(offers.code[places[grouped]])
        listings = members(offers, codes)
        rivals = np.flatnonzero(eligible(products, listings.place, rules, seed))
        best, left_out = _cheapest(products, listings.group[rivals], listings.place[rivals])
        order = np.argsort(best)
        at = order[np.searchsorted(best, places[grouped], sorter=order).clip(max=len(best) - 1)]
        is_cheapest = best[at] == places[grouped]
        allowed[grouped] = is_cheapest
        cheapest[grouped] = is_cheapest & left_out[at]
    return Shown(allowed, cheapest)


def _cheapest(products: Products, group: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of rivals in the order of `members`: the places [b] of the cheapest of each group in each currency, and bool [b]
    where others of the group were left out for it. A rival without a price is chosen only if its group has no price.
    """
    priced = ~np.isnan(products.price[place])
    unit = np.where(priced, products.currency[place], -2)
    opens_group = np.diff(group, prepend=-1) != 0
    first = np.flatnonzero(opens_group | (np.diff(unit, prepend=-3) != 0))
    size = np.diff(np.append(first, len(place)))
    unpriced = np.bincount(group[~priced], minlength=int(group.max(initial=-1)) + 1)
    left_out = size + np.where(priced[first], unpriced[group[first]], 0) > 1
    chosen = priced[first] | opens_group[first]
    return place[first[chosen]], left_out[chosen]


def eligible(products: Products, places: np.ndarray, rules: Rules, seed: int | None = None) -> np.ndarray:
    """bool [p]: which products at these places [p] pass the filters that need no other product."""
    passes = np.ones(len(places), dtype=bool) if products.gone is None else ~products.gone[places]
    if rules.in_stock:
        passes &= products.stock[places] != 0
    passes &= products.in_price_range(places, rules.price_min, rules.price_max, rules.currency)
    for key, value in rules.attributes.items():
        passes &= np.isin(places, products.having(key, value), kind="sort")
    if seed is not None:
        passes &= places != seed
        if not rules.seed_catalog:
            product = products.identity(rules.identifiers)
            passes &= (product[places] != product[seed]) | (product[seed] < 0)
    return passes


def under_cap(
    photo_group: Sequence[int], k: int, cap: int | None, before: Mapping[int, int]
) -> tuple[list[int], set[int]]:
    """The positions of the first k products with at most `cap` of each photo group, and the groups that had more.

    photo_group  of each product, best first; -1 for none
    before       number of results that each photo group has already
    """
    chosen: list[int] = []
    had_more: set[int] = set()
    count = Counter(before)
    for position, group in enumerate(photo_group):
        if len(chosen) == k:
            break
        if cap is not None and group >= 0 and count[group] >= cap:
            had_more.add(group)
        else:
            count[group] += 1
            chosen.append(position)
    return chosen, had_more


def named(
    products: Products, places: np.ndarray, rules: Rules, cheapest: np.ndarray, capped: Collection[int]
) -> list[tuple[str, ...]]:
    """The rules (`NAMES`) that each of the results at these places [p] reports.

    `cheapest` as in `Shown`; `capped` are the photo groups that had more results than the cap.
    """
    groups = products.photo_group[places].tolist()
    size = Counter(groups)
    applied = (
        (products.stock[places] > 0) & rules.in_stock,
        np.full(len(places), rules.price_min is not None or rules.price_max is not None),
        np.full(len(places), bool(rules.attributes)),
        cheapest,
        np.array([group >= 0 and size[group] > 1 for group in groups], dtype=bool),
        np.array([group in capped for group in groups], dtype=bool),
    )
    return [tuple(compress(NAMES, row)) for row in np.stack(applied, axis=1).tolist()]
