"""Different products that show the same photo: what a list may want to show once, though it is not one product.

Listings of one catalog are one product and are never told from each other here; they make no component of their own.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from shoplens.config import Config
from shoplens.curation.near_duplicates import Links, cosines, near_photos
from shoplens.curation.product_clusters import joined
from shoplens.errors import ShoplensError

ALONE = -1
"""The component of a product that shares no photo with a product of another catalog."""
_LOOKS = 64
"""Different photos of one hash that are told apart; any further ones share with nothing."""


class ComponentsConfig(Config):
    """What makes two photos the same.

    duplicate_bits  bits of 64 in which their perceptual hashes differ at most; null: products share no photos. Beyond 0
                    unlike photos have near hashes too
    cosine          what their vectors have at least, where vectors are given; null: the hash alone decides
    most            products that share photos at most, a catalog being one: a photo that more show is a placeholder and
                    left out, and photos that would chain more together join none of them
    user_roles      photos that users took, which are left out
    """

    duplicate_bits: int | None = Field(0, ge=0, le=6)
    cosine: float | None = Field(0.9, ge=-1, le=1)
    most: int = Field(20, ge=2)
    user_roles: tuple[str, ...] = ("user",)


def components(
    product: np.ndarray,
    catalog: np.ndarray,
    phash: np.ndarray,
    config: ComponentsConfig = ComponentsConfig(),
    *,
    vectors: np.ndarray | None = None,
) -> np.ndarray:
    """int64 [p]: a number that products share if photos link them to products of other catalogs, else `ALONE`.

    product  int64 [n]: of each photo, 0 to p - 1
    catalog  int64 [p], negative where unknown
    phash    uint64 [n]
    vectors  [n, d] unit rows, by which photos of near or equal hashes are confirmed to be the same

    The photos most alike join first; of all that one distance links, none is joined if more than `most` products would
    be. Raises ShoplensError if vectors are not one a photo.
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
    showing = np.unique(same * n_products + own[product]) // n_products
    placeholder = np.bincount(showing, minlength=len(phash)) > config.most
    rows = np.flatnonzero(~placeholder[same])
    links = _links(rows, same, phash, vectors, config)
    group = joined(product, np.full(n_products, -1), links, np.zeros(len(phash), bool), config.most, own)[0]
    several = np.bincount(np.unique(group * n_products + own) // n_products, minlength=n_products) > 1
    found = np.full(n_products, ALONE, np.int64)
    found[several[group]] = np.unique(group[several[group]], return_inverse=True)[1]
    return found


def same_photo(phash: np.ndarray, vectors: np.ndarray | None = None, cosine: float = 0.9) -> np.ndarray:
    """int64 [n]: of each photo the first one that it is the same as, which may be itself.

    Photos of one hash are, or, where vectors [n, d] of unit length are given, those of them that have this cosine with
    the first.
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
    """Photos `rows` with the one that each is the same as, and, of those, the ones of near hashes with each other."""
    equal = np.stack([same[rows], rows], axis=1)
    first = rows[same[rows] == rows]
    near = near_photos(phash[first], config.duplicate_bits or 0)
    pairs, distance = first[near.pairs[near.distance > 0]], near.distance[near.distance > 0]
    if vectors is not None and config.cosine is not None:
        kept = cosines(vectors, pairs) >= config.cosine
        pairs, distance = pairs[kept], distance[kept]
    return Links(np.concatenate([equal, pairs]), np.concatenate([np.zeros(len(rows), np.int64), distance]))
