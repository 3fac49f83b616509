"""Splits made of random vectors."""

from __future__ import annotations

import numpy as np

from shoplens.evaluation.embedded import EmbeddedSplit

PATHS = [("a", "b", "c"), ("a", "b", "d"), ("a", "e", "f"), ("g", "h")]


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def random_split(seed: int, n_products: int, n_photos: int, n_catalogs: int, dim: int = 8) -> EmbeddedSplit:
    """Products share catalogs and sometimes whole texts, also across catalogs; some catalogs are unknown."""
    rng = np.random.default_rng(seed)
    vocabulary = unit(rng.normal(size=(max(2, n_products * 2 // 3), dim)))
    text = rng.integers(len(vocabulary), size=n_products)
    return EmbeddedSplit(
        images=unit(rng.normal(size=(n_photos, dim))),
        samples=np.arange(n_photos),
        product=rng.integers(n_products, size=n_photos),
        texts=[f"text {i}" for i in text],
        text_vectors=vocabulary[text],
        catalog=rng.integers(-1, n_catalogs, size=n_products),
        category=rng.integers(-1, len(PATHS), size=n_products),
        category_vectors=unit(rng.normal(size=(len(PATHS), dim))),
        category_paths=PATHS,
    )


def labelled_split(
    seed: int, n_products: int, *, dim: int = 16, signal: float = 3.0, each: int = 2, shift: int = 0
) -> EmbeddedSplit:
    """Products whose vectors hold their colour and category, `signal` times as strong as noise.

    Two products a catalog, `each` photos a product, four categories; colour is known of three in four products,
    and one in twenty is mauve. The directions of colours and categories are the same for every seed.
    """
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    colours, kinds = fixed.normal(size=(4, dim)), fixed.normal(size=(len(PATHS), dim))
    colour, kind = rng.integers(3, size=n_products), rng.integers(len(PATHS), size=n_products)
    colour[rng.random(n_products) < 0.05] = 3
    meaning = signal * (colours[colour] + kinds[kind]) / 2
    product = np.repeat(np.arange(n_products), each)
    names = np.array(["red", "green", "blue", "mauve"])[colour]
    known = rng.random(n_products) < 0.75
    return EmbeddedSplit(
        images=unit(meaning[product] + rng.normal(size=(len(product), dim))),
        samples=np.arange(len(product)),
        product=product,
        texts=[f"{shift + i}" for i in range(n_products)],
        text_vectors=unit(meaning + rng.normal(size=(n_products, dim))),
        catalog=np.arange(n_products) // 2,
        category=kind,
        category_vectors=unit(kinds),
        category_paths=PATHS,
        attributes=[
            ({"colour": (str(name),)} if has else {}) | {"sizes": ("S", "M")}
            for name, has in zip(names, known, strict=True)
        ],
    )
