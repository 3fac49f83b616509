"""Product classes for metric learning: one class holds the photos of one product, over all its listings.

Listings of one catalog are one class, and so are listings that show the same photo. Users' photos belong to the class
of the product they were tagged with. Catalogs take precedence over photos: a photo never joins two catalogs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from shoplens.config import Config
from shoplens.curation.distinct import distinct
from shoplens.curation.near_duplicates import Links, cosines, near_photos
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.schema import Split

LEFT_OUT = ""
"""The split name of photos that belong to no split."""
_SPLITS = ("train", "val", "test")


class SplitsConfig(Config):
    """Splits of classes. A class lies in one split, together with all near-duplicates of its photos.

    By default each photo keeps its split of the dataset. If a class or its near-duplicates span several splits, the
    class goes to a held-out split, and its photos in the other splits are left out.
    """

    attribute: str | None = Field(None, description="product attribute that gives the split, for example class_split")
    values: dict[str, Split] = Field(
        {},
        description="split of each value of `attribute`: {base: train, novel: test}; products with other values are "
        "left out",
    )
    shares: tuple[float, float, float] | None = Field(
        None, description="shares of train, val and test; whole classes are drawn at random"
    )
    seed: int = Field(0, description="seed of that draw; it does not depend on the seed of the training")

    @model_validator(mode="after")
    def _one_way(self) -> SplitsConfig:
        if (self.attribute is None) != (not self.values):
            raise ValueError(
                "attribute and values go together: attribute=class_split values={base: train, novel: test}"
            )
        if self.attribute is not None and self.shares is not None:
            raise ValueError("give either an attribute that says the split, or shares to draw, not both")
        if self.shares is not None and not (min(self.shares) >= 0 < sum(self.shares)):
            raise ValueError("shares must not be negative, and one of them must be more than 0")
        return self


class ClassesConfig(Config):
    """Rules that join the photos of several products to one class."""

    catalogs: bool = Field(True, description="whether listings of one catalog are one class")
    duplicate_bits: int | None = Field(
        0,
        ge=0,
        le=6,
        description="largest Hamming distance, in bits of 64, of perceptual hashes that join two products; null: "
        "photos join nothing, and near-duplicates may lie in different splits. Above 0, different photos on white "
        "ground form long chains of links, and whole chains leave the training: confirm links by vectors",
    )
    cosine: float = Field(
        0.75, ge=-1, le=1, description="least cosine of the vectors of two linked photos, if vectors are given"
    )
    most: int = Field(
        20,
        ge=2,
        description="most products that photos join to one class, a catalog counting as one. A photo that more "
        "products show is a placeholder and is left out",
    )
    roles: tuple[str, ...] | None = Field(None, description='roles of the photos used, such as ["main"]; null: all')
    user_roles: tuple[str, ...] = Field(
        ("user",),
        description="roles of photos that users took. They belong to the class of the product they were tagged with "
        "and join no products; one that is near a photo of another class is left out",
    )
    splits: SplitsConfig = Field(SplitsConfig(), description="how classes are split")


@dataclass(frozen=True)
class ProductClusters:
    """Classes of n photos.

    label      int64 [n]: the class, 0 to `classes` - 1; -1 if the photo is in no class of at least two photos
    component  int64 [n]: the connected component of near-duplicates and classes, which a split never divides; -1 if
               the photo is in no split: a placeholder, or a user's photo that matches several classes
    counts     counts of classes, photos and products, and of photos left out
    """

    label: np.ndarray
    component: np.ndarray
    counts: Mapping[str, int]

    @property
    def classes(self) -> int:
        return self.counts["classes"]

    def __str__(self) -> str:
        counts = {name: f"{count:,}" for name, count in self.counts.items()}
        return (
            "{classes} classes of {photos} photos of {products} products. Products joined: {by_catalog} by their "
            "catalog, {by_photo} by a photo; not joined: {vetoed} because catalogs differ, {over_cap} because the "
            "class would be too large. Photos left out: {placeholders} placeholders, {ambiguous} users' photos that "
            "match several classes, {alone} alone in their class"
        ).format(**counts)


def clusters_of(dataset: Dataset, config: ClassesConfig, vectors: np.ndarray | None = None) -> ProductClusters:
    """`product_clusters` of all n photos of a dataset. Photos of other roles get label and component -1.

    vectors   float32 unit rows [n, d]: they confirm near-duplicates
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
    """Classes of n photos.

    product  int64 [n]: product of each photo
    catalog  int64 [n]: catalog of that product, negative if unknown
    phash    uint64 [n]: perceptual hashes
    user     bool [n]: photos that users took
    vectors  [n, d] unit rows

    Links join products by rising Hamming distance. Links of one distance that would join two catalogs, or more than
    `most` products, are dropped together, so the order of the photos does not matter. A dropped link still keeps both
    photos in one split. Raises ShoplensError if there is not one vector a photo.
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
    shown_by = np.bincount(distinct(stands_for * len(first) + listed) // max(1, len(first)), minlength=1)
    placeholder = np.zeros(n, bool) if config.duplicate_bits is None else shown_by[stands_for] > config.most
    links = Links(*(part[~placeholder[links.pairs].any(axis=1)] for part in links))
    into, vetoed, over_cap = joined(listed, known[first], links, user, config.most)
    cluster = into[listed]

    alike = _components(n, links.pairs)
    shown_in = np.bincount(distinct(alike * len(first) + cluster) // max(1, len(first)), minlength=1)
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
        "products": len(distinct(product[label >= 0])),
        "by_catalog": len(known) - len(first),
        "by_photo": len(first) - len(distinct(into)),
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
    """The split of every photo, str [n]; a component is never divided between splits.

    trained   splits that the model trains on: a component that touches another split leaves them
    Raises ShoplensError if no product has one of the attribute's values.
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
                "classes.splits asks for: check its attribute and values"
            )
    return whole_splits(component, split, trained)


def whole_splits(component: np.ndarray, split: np.ndarray, trained: Sequence[str] = ("train",)) -> np.ndarray:
    """`split` str [n] with every component, int64 [n], in one split; its photos in other splits become `LEFT_OUT`.

    A component stays in the first split of: test, val, other held-out splits by name, the `trained` splits (which count
    as one). Photos of no component (-1) are left out.
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
    """train, val or test for each photo, str [n].

    Whole components, int64 [n], are drawn, so the shares of photos are met only approximately. Photos of no component
    (-1) are left out.
    """
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
    """Near-duplicates among the photos. Among equal hashes, a photo of the shop comes before users' photos."""
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
    """Joins c classes along `links`: the first class of each joined group, int64 [c], and two counts.

    The counts are the classes not joined because their catalogs differ, and because the group would exceed `most`.

    listed   int64 [n]: class of each photo
    catalog  int64 [c]: catalog of each class, negative if unknown
    user     bool [n]: photos that join nothing
    own      int64 [c], below c: classes with equal values count as one towards `most`; each counts if it is None
    """
    into = np.arange(len(catalog))
    own = into if own is None else own
    code = np.unique(catalog, return_inverse=True)[1]
    by_shop = ~user[links.pairs].any(axis=1)
    refused = np.zeros((2, len(catalog)), bool)
    for distance in np.unique(links.distance[by_shop]).tolist():
        pairs = into[listed[links.pairs[by_shop & (links.distance <= distance)]]]
        together = _components(len(catalog), pairs)[into]
        known = distinct((together * len(catalog) + code)[catalog >= 0]) // len(catalog)
        counted = distinct(together * len(catalog) + own) // len(catalog)
        catalogs, members = (np.bincount(of, minlength=len(catalog)) for of in (known, counted))
        linked = np.isin(into, pairs[pairs[:, 0] != pairs[:, 1]])
        refused |= linked & np.stack([catalogs > 1, (catalogs <= 1) & (members > most)])[:, together]
        first = np.full(len(catalog), len(catalog))
        np.minimum.at(first, together, into)
        into = np.where(((catalogs <= 1) & (members <= most))[together], first[together], into)
    return into, int(refused[0].sum()), int(refused[1].sum())


def _components(n: int, pairs: np.ndarray, further: np.ndarray | None = None) -> np.ndarray:
    """Connected components int64 [n] of n nodes with the edges `pairs` [m, 2] and (node, `further`[node])."""
    if further is not None:
        pairs = np.concatenate([pairs, np.stack([np.arange(n), further], 1)])
    graph = sparse.coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    return connected_components(graph, directed=False)[1].astype(np.int64)
