"""The products that lists are about, as item codes with their categories and product groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from shoplens.datasets.format import Dataset
from shoplens.search.index import Index
from shoplens.search.product_identity import products_of
from shoplens.search.rules import Rules

LEVELS = ("leaf", "parent", "section")


@dataclass(frozen=True)
class Shop:
    """The n products that lists are about: those of the dataset, then those that only an index holds.

    ids         string [n]; a product's item code is its position here
    n_listed    number of products of the dataset
    products    groups of items that count as one product, by name, int64 [n]: `product` (catalog and identifiers, as in
                the rules), `component` (photo group of the first index), `photo` (a perceptual hash in common), and on a
                synthetic shop `truth`
    categories  the category at each of `LEVELS`, int64 [n], -1 where unknown: the own one, its parent, its root
    sample      int64 [n]: the first photo, a row of `Dataset.images`, -1 without a photo
    """

    ids: pa.Array
    n_listed: int
    products: Mapping[str, np.ndarray]
    categories: Mapping[str, np.ndarray]
    sample: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, dataset: Dataset, indexes: Sequence[Index], rules: Rules = Rules()) -> Shop:
        listed = dataset.products.select(["product_id", "catalog_id", "category_id", "attributes"])
        tables, known = [listed], listed["product_id"].combine_chunks()
        paths = {node.id: node.path for tree in (dataset.categories, *(i.tree for i in indexes)) for node in tree}
        for index in indexes:
            live = _live(index)
            new = live.filter(pc.invert(pc.is_in(live["product_id"], value_set=known)))
            tables.append(new.select(listed.column_names).cast(listed.schema))
            known = pa.concat_arrays([known, new["product_id"].combine_chunks()])
        whole = pa.concat_tables(tables).combine_chunks()
        catalog = _numbered(whole["catalog_id"])
        product = products_of(catalog, whole["attributes"].combine_chunks(), rules.identifiers)
        products = {"product": np.where(product >= 0, product, catalog)}
        components = _live(indexes[0]).select(["product_id", "component"])
        at = pc.index_in(known, value_set=components["product_id"].combine_chunks())
        component = components["component"].combine_chunks().take(at)
        if component.null_count < len(component):
            products["component"] = _numbered(component)
        products["photo"] = _sharing_a_photo(dataset, len(known))
        truth = _truth(dataset)
        if truth is not None:
            true_catalog = truth["true_catalog_id"].combine_chunks()
            place = pc.index_in(known, value_set=truth["product_id"].combine_chunks())
            products["truth"] = _numbered(true_catalog.take(place))
        sample = np.full(len(known), -1, dtype=np.int64)
        photos = np.arange(len(dataset.product_row))[::-1]
        sample[dataset.product_row[photos]] = photos
        return cls(known, listed.num_rows, products, _categories(whole["category_id"], paths), sample)

    def codes(self, ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """int64 [m]: the item code of each id, -1 for an unknown id."""
        return pc.fill_null(pc.index_in(ids, value_set=self.ids), -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def seeds(self, n: int | None = None) -> list[str]:
        """Ids of the seeds, in the order of the dataset: all its products, or n of them drawn at random.

        Every index gets the same seeds.
        """
        rows = np.arange(self.n_listed)
        if n is not None and n < len(rows):
            rows = np.sort(np.random.default_rng(0).permutation(len(rows))[:n])
        return self.ids.take(pa.array(rows)).to_pylist()


def _live(index: Index) -> pa.Table:
    """The items row of the first photo of each product that is not gone."""
    first = index.products.start[:-1]
    return index.items.take(pa.array(first if index.products.gone is None else first[~index.products.gone]))


def _numbered(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """int64 [n]: a number for each value; every null gets a negative number of its own."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    codes = whole.dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    return np.where(codes >= 0, codes, -1 - np.arange(len(codes)))


def _sharing_a_photo(dataset: Dataset, n: int) -> np.ndarray:
    """int64 [n]: a group for each product; products linked by photos of one perceptual hash are one group."""
    phash = dataset.images["phash"].to_numpy()
    hashes, code = np.unique(phash, return_inverse=True)
    links = (np.ones(len(code), bool), (dataset.product_row, n + code))
    graph = sparse.coo_array(links, shape=(n + len(hashes), n + len(hashes)))
    return connected_components(graph, directed=False)[1][:n].astype(np.int64)


def _truth(dataset: Dataset) -> pa.Table | None:
    """The true catalogs of a synthetic shop; None for any other dataset."""
    try:
        return dataset.table("truth", ["product_id", "true_catalog_id"])
    except FileNotFoundError:
        return None


def _categories(category: pa.ChunkedArray, paths: Mapping[str, tuple[str, ...]]) -> dict[str, np.ndarray]:
    encoded = category.combine_chunks().dictionary_encode()
    of_code = [paths.get(name, ()) for name in encoded.dictionary.to_pylist()]
    numbers = {path[:end]: 0 for path in of_code for end in range(1, len(path) + 1)}
    numbers = {path: number for number, path in enumerate(numbers)}
    code = encoded.indices.fill_null(len(of_code)).to_numpy(zero_copy_only=False)
    ends = {"leaf": lambda path: path, "parent": lambda path: path[:-1] or path, "section": lambda path: path[:1]}
    return {
        level: np.array([*(numbers.get(ends[level](path), -1) for path in of_code), -1], dtype=np.int64)[code]
        for level in LEVELS
    }
