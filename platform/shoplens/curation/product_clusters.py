"""Classes to learn similarity from: the photos of one product, over its listings, as far as the shop can tell.

A class holds all photos of a product, users' photos too, of every listing of its catalog, and of listings that
show the same photo. What the shop says stands before what photos look like: two catalogs are never joined by a photo.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from shoplens.config import Config
from shoplens.curation.near_duplicates import Links, cosines, near_photos
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.schema import Split

LEFT_OUT = ""
"""The split of photos that are in none."""
_SPLITS = ("train", "val", "test")


class SplitsConfig(Config):
    """Which split a class is of: it is whole in one, with all photos that look like its own.

    The split of each photo is that of the dataset unless it is said otherwise. A class whose photos, or near-duplicates
    of them, are of several splits belongs to a held-out one; what it has in the others is left out.

    attribute   an attribute of products that says it, such as class_split, and in `values` what its values mean:
                {base: train, novel: test}; products with none of them are left out
    shares      of train, val and test, where they are drawn here, as whole classes, by `seed`, which stays the same
                whatever the seed of the training
    """

    attribute: str | None = None
    values: dict[str, Split] = {}
    shares: tuple[float, float, float] | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _one_way(self) -> SplitsConfig:
        if (self.attribute is None) != (not self.values):
            raise ValueError(
                "attribute and values go together: attribute=class_split values={base: train, novel: test}"
            )
        if self.attribute is not None and self.shares is not None:
            raise ValueError("give either an attribute that says the split, or the shares that are drawn here")
        if self.shares is not None and not (min(self.shares) >= 0 < sum(self.shares)):
            raise ValueError("shares are not negative, and one of them is more than 0")
        return self


class ClassesConfig(Config):
    """What makes the photos of several products one class.

    catalogs        listings of one catalog are one class
    duplicate_bits  products are joined by photos whose perceptual hashes differ in so many bits of 64 at most; null:
                    photos join nothing, and splits are not kept apart by them. Beyond 0 unlike photos on white
                    ground make long chains, which leave the training whole: confirm them by vectors
    cosine          these photos' vectors have this cosine at least, where vectors are given
    most            products that photos join to one class at most, a catalog being one; photos with one hash that
                    more show are a placeholder and left out
    roles           photos of these roles; null: of all
    user_roles      photos that users took: they come in by the product they were tagged with and join no products,
                    and one that is near to a photo of another class is of none
    """

    catalogs: bool = True
    duplicate_bits: int | None = Field(0, ge=0, le=6)
    cosine: float = Field(0.75, ge=-1, le=1)
    most: int = Field(20, ge=2)
    roles: tuple[str, ...] | None = None
    user_roles: tuple[str, ...] = ("user",)
    splits: SplitsConfig = SplitsConfig()


@dataclass(frozen=True)
class ProductClusters:
    """Classes of n photos.

    label      int64 [n]: the class, 0 to `classes` - 1; -1 of a photo in no class of two photos or more
    component  int64 [n]: photos that no split may part; -1 of a photo that is in no split: a placeholder, or a user's
               that could be of several classes
    counts     how many photos and products there were, and what became of them
    """

    label: np.ndarray
    component: np.ndarray
    counts: Mapping[str, int]

    @property
    def classes(self) -> int:
        return self.counts["classes"]

    def __str__(self) -> str:
        said = {name: f"{count:,}" for name, count in self.counts.items()}
        return (
            "{classes} classes of {photos} photos of {products} products: {by_catalog} products joined by their "
            "catalog, {by_photo} by a photo, {vetoed} not because of different catalogs, {over_cap} not because "
            "too many would be one; {placeholders} photos are placeholders, {ambiguous} users' photos of several "
            "classes, {alone} photos alone in their class"
        ).format(**said)


def clusters_of(dataset: Dataset, config: ClassesConfig, vectors: np.ndarray | None = None) -> ProductClusters:
    """`product_clusters` of the photos of a dataset, n being all of them; those of other roles are in nothing.

    vectors   float32 unit rows [n, d], by which near-duplicates are confirmed
    """
    codes = {catalog: code for code, catalog in enumerate(dict.fromkeys(dataset.products["catalog_id"].to_pylist()))}
    codes[None] = -1
    catalog = np.array([codes[one] for one in dataset.products["catalog_id"].to_pylist()], dtype=np.int64)
    role = dataset.images["role"].to_numpy(zero_copy_only=False)
    chosen = np.ones(len(role), bool) if config.roles is None else np.isin(role, config.roles)
    product = dataset.product_row[chosen]
    found = product_clusters(
        product,
        catalog[product],
        dataset.images["phash"].to_numpy()[chosen],
        config,
        user=np.isin(role[chosen], config.user_roles),
        vectors=None if vectors is None else vectors[chosen],
    )
    label, component = np.full(len(role), -1, np.int64), np.full(len(role), -1, np.int64)
    label[chosen], component[chosen] = found.label, found.component
    return ProductClusters(label, component, found.counts)


def product_clusters(
    product: np.ndarray,
    catalog: np.ndarray,
    phash: np.ndarray,
    config: ClassesConfig,
    *,
    user: np.ndarray | None = None,
    vectors: np.ndarray | None = None,
) -> ProductClusters:
    """Of n photos.

    product  int64 [n], catalog int64 [n] of the product, negative where unknown
    phash    uint64 [n]
    user     bool [n]: photos that users took
    vectors  [n, d] unit rows

    Products are joined by the photos that are most alike first: of all that photos up to one distance link, none is
    joined if that would join two catalogs or more than `most` products, so the order of the photos says nothing. A link
    that joins nothing still keeps both photos in one split. Raises ShoplensError if vectors are not one a photo.
    """
    n = len(product)
    user = np.zeros(n, bool) if user is None else user
    _, of_product, place = np.unique(product, return_index=True, return_inverse=True)
    known = catalog[of_product]
    own = np.where(known >= 0, known, -1 - np.arange(len(known))) if config.catalogs else np.arange(len(known))
    _, first, group = np.unique(own, return_index=True, return_inverse=True)
    listed = group[place]
    """The class of each photo before photos join any."""
    links = _links(phash, config, user, vectors)
    stands_for = np.unique(phash, return_inverse=True)[1]
    shown_by = np.bincount(np.unique(np.stack([stands_for, listed]), axis=1)[0], minlength=1)
    placeholder = np.zeros(n, bool) if config.duplicate_bits is None else shown_by[stands_for] > config.most
    links = Links(*(part[~placeholder[links.pairs].any(axis=1)] for part in links))
    into, vetoed, over_cap = joined(listed, known[first], links, user, config.most)
    cluster = into[listed]

    alike = _components(n, links.pairs)
    shown_in = np.bincount(np.unique(np.stack([alike, cluster]), axis=1)[0], minlength=1)
    ambiguous = user & ~placeholder & (shown_in[alike] > 1)
    usable = ~(placeholder | ambiguous)
    photos = np.bincount(cluster[usable], minlength=len(first) + 1)
    alone = usable & (photos[cluster] < 2)
    label = np.full(n, -1, np.int64)
    classes, label[usable & ~alone] = np.unique(cluster[usable & ~alone], return_inverse=True)
    component = _components(len(first), cluster[links.pairs], into)[listed]
    counts = {
        "classes": len(classes),
        "photos": int((label >= 0).sum()),
        "products": len(np.unique(product[label >= 0])),
        "by_catalog": len(known) - len(first),
        "by_photo": len(first) - len(np.unique(into)),
        "vetoed": vetoed,
        "over_cap": over_cap,
        "placeholders": int(placeholder.sum()),
        "ambiguous": int(ambiguous.sum()),
        "alone": int(alone.sum()),
    }
    return ProductClusters(label, np.where(placeholder | ambiguous, -1, component), counts)


def splits_of(
    dataset: Dataset, component: np.ndarray, config: SplitsConfig, trained: Sequence[str] = ("train",)
) -> np.ndarray:
    """The split of every photo, str [n], in which no component is parted.

    trained   splits that are learnt from: a component that touches any other leaves them
    Raises ShoplensError if no product has a value of the attribute.
    """
    if config.shares is not None:
        return drawn_splits(component, config.shares, config.seed)
    split = dataset.images["split"].to_numpy(zero_copy_only=False).astype(str)
    if config.attribute is not None:
        attributes = dataset.products["attributes"].to_pylist()
        said = [dict(given or ()).get(config.attribute) or [] for given in attributes]
        of_product = np.array([next((config.values[v] for v in values if v in config.values), "") for values in said])
        split = of_product[dataset.product_row]
        if not (split != LEFT_OUT).any():
            raise ShoplensError(
                f"no product of {dataset.path} has {config.attribute} {' or '.join(config.values)}, which "
                "classes.splits asks for"
            )
    return whole_splits(component, split, trained)


def whole_splits(component: np.ndarray, split: np.ndarray, trained: Sequence[str] = ("train",)) -> np.ndarray:
    """`split` str [n] with `LEFT_OUT` where a photo's component, int64 [n], also lies in another one that precedes it.

    test precedes val, val the others by name, and those precede the `trained` ones, which are as one. Photos of no
    component are left out.
    """
    names, code = np.unique(split, return_inverse=True)
    held_out = sorted({*names.tolist()} - {*trained, LEFT_OUT}, key=lambda name: (name != "test", name != "val", name))
    order = {name: place for place, name in enumerate(held_out)}
    last = len(order) + 1
    rank = np.array([order.get(n, last if n == LEFT_OUT else last - 1) for n in names.tolist()], dtype=np.int64)[code]
    first = np.full(int(component.max(initial=-1)) + 2, last)
    np.minimum.at(first, component, rank)
    return np.where((component >= 0) & (rank == first[component]), split, LEFT_OUT)


def drawn_splits(component: np.ndarray, shares: tuple[float, float, float], seed: int) -> np.ndarray:
    """train, val or test for each photo, str [n]: whole components, int64 [n], in these shares of the photos as nearly
    as that allows. Photos of no component are left out."""
    codes, sizes = np.unique(component[component >= 0], return_counts=True)
    rng = np.random.default_rng((seed, 6))
    order = rng.permutation(len(codes))
    before = np.cumsum(sizes[order]) - sizes[order]
    drawn = np.empty(len(codes), np.int64)
    middle = (before + sizes[order] / 2) / max(1, sizes.sum())
    drawn[order] = np.searchsorted(np.cumsum(shares) / sum(shares), middle, "right").clip(max=2)
    found = np.full(len(component), LEFT_OUT, dtype="<U5")
    found[component >= 0] = np.array(_SPLITS)[drawn[np.searchsorted(codes, component[component >= 0])]]
    return found


def _links(phash: np.ndarray, config: ClassesConfig, user: np.ndarray, vectors: np.ndarray | None) -> Links:
    """Near-duplicates among the photos; of one hash a photo of the shop stands for all where there is one."""
    if vectors is not None and len(vectors) != len(phash):
        raise ShoplensError(f"{len(vectors)} vectors for {len(phash)} photos: give one for each")
    if config.duplicate_bits is None:
        return Links(np.empty((0, 2), np.int64), np.empty(0, np.int64))
    order = np.argsort(user, kind="stable")
    found = near_photos(phash[order], config.duplicate_bits)
    links = Links(order[found.pairs], found.distance)
    if vectors is None:
        return links
    confirmed = cosines(vectors, links.pairs) >= config.cosine
    return Links(*(part[confirmed] for part in links))


def joined(
    listed: np.ndarray,
    catalog: np.ndarray,
    links: Links,
    user: np.ndarray,
    most: int,
    own: np.ndarray | None = None,
) -> tuple[np.ndarray, int, int]:
    """The class that each of c classes becomes part of, int64 [c], and how many classes were not joined because of
    their catalogs, and because there were too many.

    listed   int64 [n]: class of each photo; catalog int64 [c], negative where unknown
    user     bool [n]: photos that join nothing
    own      int64 [c], below c: classes that count as one among the `most`; each counts if it is left out
    """
    into = np.arange(len(catalog))
    own = into if own is None else own
    by_shop = ~user[links.pairs].any(axis=1)
    refused = np.zeros((2, len(catalog)), bool)
    for distance in np.unique(links.distance[by_shop]).tolist():
        pairs = into[listed[links.pairs[by_shop & (links.distance <= distance)]]]
        together = _components(len(catalog), pairs)[into]
        known = np.unique(np.stack([together, catalog])[:, catalog >= 0], axis=1)[0]
        counted = np.unique(together * len(catalog) + own) // len(catalog)
        catalogs, members = (np.bincount(of, minlength=len(catalog)) for of in (known, counted))
        linked = np.isin(into, pairs[pairs[:, 0] != pairs[:, 1]])
        refused |= linked & np.stack([catalogs > 1, (catalogs <= 1) & (members > most)])[:, together]
        first = np.full(len(catalog), len(catalog))
        np.minimum.at(first, together, into)
        into = np.where(((catalogs <= 1) & (members <= most))[together], first[together], into)
    return into, int(refused[0].sum()), int(refused[1].sum())


def _components(n: int, pairs: np.ndarray, further: np.ndarray | None = None) -> np.ndarray:
    """Connected components int64 [n] of nodes that `pairs` [m, 2] and node -> `further`[node] [n] link."""
    if further is not None:
        pairs = np.concatenate([pairs, np.stack([np.arange(n), further], 1)])
    graph = sparse.coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)
