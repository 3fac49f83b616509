"""Components of different products that show the same photo. A list may cap how many of a component it shows.

Listings of one catalog count as one product: alone they form no component.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from shoplens.config import Config
from shoplens.curation.distinct import distinct
from shoplens.curation.near_duplicates import Links, cosines, near_photos
from shoplens.curation.product_clusters import joined
from shoplens.errors import ShoplensError

ALONE = -1
"""The component number of a product that shares no photo with a product of another catalog."""
_LOOKS = 64
"""Most distinct photos with equal hashes. Further ones are linked to nothing."""


class ComponentsConfig(Config):
    """Rules for when two photos count as the same photo."""

    duplicate_bits: int | None = Field(
        0,
        ge=0,
        le=6,
        description="largest Hamming distance of the perceptual hashes, in bits of 64; null: no photo is shared. "
        "Above 0, different photos may match too",
    )
    cosine: float | None = Field(
        0.9,
        ge=-1,
        le=1,
        description="least cosine of the photos' vectors, if vectors are given; null: hashes alone decide",
    )
    most: int = Field(
        20,
        ge=2,
        description="most products in a component, a catalog counting as one. A photo that more products show is a "
        "placeholder and is ignored. Links that would make a larger component are dropped",
    )
    user_roles: tuple[str, ...] = Field(("user",), description="roles of photos that users took; they are ignored")


def components(
    product: np.ndarray,
    catalog: np.ndarray,
    phash: np.ndarray,
    config: ComponentsConfig = ComponentsConfig(),
    *,
    vectors: np.ndarray | None = None,
) -> np.ndarray:
    """int64 [p]: the component of each product, or `ALONE` if photos link it to no product of another catalog.

    product  int64 [n]: product of each photo, 0 to p - 1
    catalog  int64 [p]: catalog of each product, negative if unknown
    phash    uint64 [n]: perceptual hashes
    vectors  [n, d] unit rows: they confirm matches by hash

    Links are added by rising Hamming distance. Links of one distance that would join more than `most` products are
    dropped together. Raises ShoplensError if there is not one vector a photo.
    """
    if vectors is not None and len(vectors) != len(phash):
        raise ShoplensError(f"{len(vectors)} vectors for {len(phash)} photos: give one for each")
    n_products = len(catalog)
    own = np.where(catalog >= 0, catalog, catalog.max(initial=-1) + 1 + np.arange(n_products))
    own = np.unique(own, return_inverse=True)[1]
    if config.duplicate_bits is None or not len(phash):
        return np.full(n_products, ALONE, np.int64)
    if config.cosine is None:
        vectors = None
    same = same_photo(phash, vectors, config.cosine or 0.0)
    showing = distinct(same * n_products + own[product]) // n_products
    placeholder = np.bincount(showing, minlength=len(phash)) > config.most
    rows = np.flatnonzero(~placeholder[same])
    links = _links(rows, same, phash, vectors, config)
    group = joined(product, np.full(n_products, -1), links, np.zeros(len(phash), bool), config.most, own)[0]
    several = np.bincount(distinct(group * n_products + own) // n_products, minlength=n_products) > 1
    found = np.full(n_products, ALONE, np.int64)
    found[several[group]] = np.unique(group[several[group]], return_inverse=True)[1]
    return found


def same_photo(phash: np.ndarray, vectors: np.ndarray | None = None, cosine: float = 0.9) -> np.ndarray:
    """int64 [n]: for each photo, the first photo that is the same (possibly itself).

    Photos with equal hashes are the same. If unit vectors [n, d] are given, they must also have at least this `cosine`
    with the first.
    """
    if vectors is None:
        _, first, of_row = np.unique(phash, return_index=True, return_inverse=True)
        return first[of_row].astype(np.int64)
    same, rest = np.arange(len(phash)), np.argsort(phash, kind="stable")
    for _ in range(_LOOKS):
        if not len(rest):
            break
        begin = np.flatnonzero(np.append(True, phash[rest[1:]] != phash[rest[:-1]]))
        first = np.repeat(rest[begin], np.diff(np.append(begin, len(rest))))
        confirmed = (first == rest) | (cosines(vectors, np.stack([first, rest], axis=1)) >= cosine)
        same[rest[confirmed]] = first[confirmed]
        rest = rest[~confirmed]
    return same


def _links(
    rows: np.ndarray, same: np.ndarray, phash: np.ndarray, vectors: np.ndarray | None, config: ComponentsConfig
) -> Links:
    """Links of the photos `rows` to the photo each one equals, and links between near hashes among the latter."""
    equal = np.stack([same[rows], rows], axis=1)
    first = rows[same[rows] == rows]
    near = near_photos(phash[first], config.duplicate_bits or 0)
    pairs, distance = first[near.pairs[near.distance > 0]], near.distance[near.distance > 0]
    if vectors is not None and config.cosine is not None:
        kept = cosines(vectors, pairs) >= config.cosine
        pairs, distance = pairs[kept], distance[kept]
    return Links(np.concatenate([equal, pairs]), np.concatenate([np.zeros(len(rows), np.int64), distance]))
