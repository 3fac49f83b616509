"""The shop's rules: what may be shown, and what of the same product or photo is shown once."""

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
"""What is said of a result: its stock is known and not zero; its price or attributes are those asked for; dearer
listings of the product, of the same variant, were left out; another result shares a photo with it; more would have, but for the cap."""


class SameProduct(Config):
    """What makes listings one product.

    identifiers  attributes that name a product together, the maker's number last: what makes listings one product
                 beside their catalog (`product_identity.products_of`); none: the catalog alone
    variants     attributes that make listings of one product different things, of which each is shown: those that
                 differ in one of them, or of which only one has it; upper and lower case of a key are one
    """

    identifiers: Identifiers = (("gtin",), ("brand", "mpn"), ("brand", "model code"), ("브랜드", "모델명"))
    variants: tuple[str, ...] = ("size", "quantity", "capacity", "사이즈", "수량", "용량")

    @field_validator("identifiers")
    @classmethod
    def _name_something(cls, identifiers: Identifiers) -> Identifiers:
        if not all(identifiers):
            raise ValueError("an identifier of no attributes names nothing: leave it out")
        return identifiers


class Rules(SameProduct):
    """Which products may be shown; by default what `POST /v1/similar` shows beside a product.

    in_stock        leave out products whose stock is known and zero
    price_min, price_max   inclusive; with either, products without a price are left out
    attributes      the value that a product must have, among others, of each of these attributes
    seed_catalog    whether other listings of the seed's product may be shown; the seed itself never is
    cheapest        of the listings of a product that may be shown, show the cheapest only, the first by id of equals;
                    one without a price only where none has one
    component_cap   most results that share a photo though they are different products; null: all
    """

    in_stock: bool = True
    price_min: float | None = Field(None, ge=0, allow_inf_nan=False)
    price_max: float | None = Field(None, ge=0, allow_inf_nan=False)
    attributes: dict[str, str] = {}
    seed_catalog: bool = True
    cheapest: bool = True
    component_cap: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        if self.price_min is not None and self.price_max is not None and self.price_min > self.price_max:
            raise ValueError(f"the price range {self.price_min:g} to {self.price_max:g} is empty: swap its ends")
        return self


class Shown(NamedTuple):
    """`allowed` bool [p]: what may be shown of p places; `cheapest` bool [p]: what stands for dearer listings too."""

    allowed: np.ndarray
    cheapest: np.ndarray


def shown(products: Products, places: np.ndarray, rules: Rules, seed: int | None = None) -> Shown:
    """What of the products at these places [p] may be shown beside the product at the place `seed`.

    The cheapest listing of a variant of a product is sought in the whole shop, wherever it is filed. The cap of a component is
    not applied here: it depends on what else is shown.
    """
    allowed = eligible(products, places, rules, seed)
    cheapest = np.zeros(len(places), dtype=bool)
    if rules.cheapest:
        offers = products.offers(rules.variants, rules.identifiers)
        grouped = np.flatnonzero(allowed & (offers.code[places] >= 0))
        codes, group = np.unique(offers.code[places[grouped]], return_inverse=True)
        of_code = members(offers, codes)
        rivals = np.flatnonzero(eligible(products, of_code.place, rules, seed))
        first = np.searchsorted(of_code.group[rivals], np.arange(len(codes) + 1))
        stands = of_code.place[rivals[first[:-1]]][group] == places[grouped]
        allowed[grouped] = stands
        cheapest[grouped] = stands & (np.diff(first) > 1)[group]
    return Shown(allowed, cheapest)


def eligible(products: Products, places: np.ndarray, rules: Rules, seed: int | None = None) -> np.ndarray:
    """bool [p]: which of the products at these places [p] pass the filters, each judged by itself."""
    passes = np.ones(len(places), dtype=bool) if products.gone is None else ~products.gone[places]
    if rules.in_stock:
        passes &= products.stock[places] != 0
    if rules.price_min is not None:
        passes &= products.price[places] >= rules.price_min
    if rules.price_max is not None:
        passes &= products.price[places] <= rules.price_max
    for key, value in rules.attributes.items():
        passes &= np.isin(places, products.having(key, value), kind="sort")
    if seed is not None:
        passes &= places != seed
        if not rules.seed_catalog:
            product = products.identity(rules.identifiers)
            passes &= (product[places] != product[seed]) | (product[seed] < 0)
    return passes


def under_cap(
    component: Sequence[int], k: int, cap: int | None, before: Mapping[int, int]
) -> tuple[list[int], set[int]]:
    """The first k products, best first, of which at most `cap` are of a component; and which components had more.

    component  of each product; -1 belongs to none
    before     how many of each component are shown already
    """
    chosen: list[int] = []
    had_more: set[int] = set()
    count = Counter(before)
    for number, code in enumerate(component):
        if len(chosen) == k:
            break
        if cap is not None and code >= 0 and count[code] >= cap:
            had_more.add(code)
        else:
            count[code] += 1
            chosen.append(number)
    return chosen, had_more


def named(
    products: Products, places: np.ndarray, rules: Rules, cheapest: np.ndarray, capped: Collection[int]
) -> list[tuple[str, ...]]:
    """The names (`NAMES`) of what was applied to each of the results at these places [p].

    `cheapest` as in `Shown`; `capped`: the components of which there were more than the cap.
    """
    component = products.component[places].tolist()
    of_component = Counter(component)
    applied = (
        (products.stock[places] > 0) & rules.in_stock,
        np.full(len(places), rules.price_min is not None or rules.price_max is not None),
        np.full(len(places), bool(rules.attributes)),
        cheapest,
        np.array([code >= 0 and of_component[code] > 1 for code in component], dtype=bool),
        np.array([code in capped for code in component], dtype=bool),
    )
    return [tuple(compress(NAMES, row)) for row in np.stack(applied, axis=1).tolist()]
