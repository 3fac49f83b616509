"""Catalogs of the shop: the design, offers, split and leaf category of each.

A *catalog* is one product design. Its offers (the products of the dataset) come from different sellers.
Everything about catalog number `i` depends on `(seed, i)` only, so any process can make any part of the shop in
any order.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from shoplens.synthetic.departments import LEAVES_OF_SHOP, Leaf
from shoplens.synthetic.vocabulary import BRANDS, COLOURS, MATERIALS, PATTERNS, RGB, WINTER, Word

DESIGN, SPLITS, LEAVES, SELLER, OFFER, CHUNK = range(6)
"""Kinds of random streams. `(seed, kind, index)` seeds each stream."""


def stream(seed: int, kind: int, index: int) -> np.random.Generator:
    """The random stream of one kind and index."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, kind, index])))


LOOKS: dict[str, Callable[[Design], bool]] = {
    "romantic": lambda d: (
        d.pattern in ("floral", "heart") or (d.colour in ("pink", "purple") and d.material in ("satin", "velvet"))
    ),
    "minimal": lambda d: d.pattern == "plain" and d.colour in ("black", "white", "grey", "beige"),
    "vintage": lambda d: (
        d.pattern == "checked" or d.material in ("corduroy", "suede") or (d.colour == "brown" and d.pattern == "plain")
    ),
    "cute": lambda d: (
        d.pattern in ("polka dot", "star", "heart")
        and d.colour in ("pink", "yellow", "mint", "sky blue", "white", "red", "orange")
    ),
    "marine": lambda d: d.pattern == "striped" or (d.colour in ("navy", "blue") and d.pattern == "plain"),
    "nature": lambda d: d.pattern == "leaf print" or d.colour in ("green", "khaki") or d.material == "oak wood",
}
"""Styles of exhibitions, each with its rule for designs. A design may have several styles or none."""

_SEASON_OF_COLOUR = {
    "pink": "spring", "mint": "spring", "yellow": "spring", "sky blue": "summer", "white": "summer",
    "blue": "summer", "brown": "autumn", "khaki": "autumn", "orange": "autumn", "black": "winter",
    "grey": "winter", "navy": "winter",
}  # fmt: skip


@dataclass(frozen=True)
class Design:
    """The properties that all offers of a catalog share. `form`: 8 numbers in [-1, 1] that vary the silhouette."""

    index: int
    leaf: Leaf
    split: str
    colour: str
    accent: str
    pattern: str
    material: str
    shape: dict[str, Word]
    brand: Word
    model_code: str
    form: tuple[float, ...]
    rgb: RGB
    motif_rgb: RGB
    accent_rgb: RGB
    pattern_scale: float
    pattern_angle: float
    charm: float

    @property
    def looks(self) -> tuple[str, ...]:
        return tuple(look for look, has in LOOKS.items() if has(self))

    @property
    def seasons(self) -> tuple[str, ...]:
        """Seasons by sleeve or leaf, else by material, else by colour."""
        sleeve = self.shape.get("sleeve")
        if self.leaf.id == "shorts" or (sleeve and sleeve.en in ("short sleeve", "sleeveless")):
            return ("summer",) if MATERIALS[self.material].seasons != WINTER else ()
        return MATERIALS[self.material].seasons or tuple(filter(None, [_SEASON_OF_COLOUR.get(self.colour)]))


@dataclass(frozen=True)
class Catalogue:
    """All catalogs of a shop with `products` offers. A catalog has 1 to 2 * `offers_per_catalog` - 1 offers.

    splits   names of the splits with their shares of the catalogs
    """

    seed: int
    products: int
    offers_per_catalog: int
    splits: tuple[tuple[str, float], ...]

    @cached_property
    def catalogs(self) -> int:
        """Number of catalogs."""
        pairs = -(-self.products // (2 * self.offers_per_catalog))
        return 2 * pairs if self.first_offer(2 * pairs - 1) < self.products else 2 * pairs - 1

    def first_offer(self, index: int) -> int:
        """Number of a catalog's first offer. Catalogs come in pairs with m - d and m + d offers."""
        m = self.offers_per_catalog
        return m * index - (self._spread(index // 2) if index % 2 else 0)

    def offers(self, index: int) -> range:
        """Numbers of a catalog's offers."""
        return range(self.first_offer(index), min(self.first_offer(index + 1), self.products))

    def _spread(self, pair: int) -> int:
        m = self.offers_per_catalog
        return (pair * 7919 + self.seed) % m

    def split(self, index: int) -> str:
        """The split of a whole catalog. Every block of 20 catalogs has the shares of `splits`."""
        position = (_shuffled(self.seed, SPLITS, index // 20, 20)[index % 20] + 0.5) / 20
        for name, share in self.splits:
            if position < share:
                return name
            position -= share
        return self.splits[-1][0]

    def leaf(self, index: int) -> Leaf:
        """The leaf category of a catalog. Every block of `len(LEAVES_OF_SHOP)` catalogs has each leaf once."""
        n = len(LEAVES_OF_SHOP)
        return LEAVES_OF_SHOP[_shuffled(self.seed, LEAVES, index // n, n)[index % n]]

    def lookalike(self, index: int, rng: np.random.Generator) -> int | None:
        """Another catalog of the same leaf and split, which a poor matcher could confuse with this one.

        Falls back to any catalog of the split among the 60 before or after. None if there is none.
        """
        n = len(LEAVES_OF_SHOP)
        blocks, leaf, split = -(-self.catalogs // n), self.leaf(index), self.split(index)
        for block in (index // n + 1 + rng.permutation(min(blocks, 256))) % blocks:
            for other in range(block * n, min((block + 1) * n, self.catalogs)):
                if other != index and self.leaf(other) is leaf and self.split(other) == split:
                    return other
        near = [
            i
            for i in range(max(0, index - 60), min(self.catalogs, index + 60))
            if i != index and self.split(i) == split
        ]
        return int(rng.choice(near)) if near else None

    def design(self, index: int) -> Design:
        """Draws the design of a catalog."""
        return draw_design(stream(self.seed, DESIGN, index), index, self.leaf(index), self.split(index))


def draw_design(
    rng: np.random.Generator,
    index: int,
    leaf: Leaf,
    split: str,
    *,
    colour: str | None = None,
    pattern: str | None = None,
    shape: dict[str, Word] | None = None,
) -> Design:
    """Draws a design of a leaf category. Colour, pattern and shape are drawn too where they are not given."""
    colour = colour or str(rng.choice(list(COLOURS)))
    rgb = _shade(COLOURS[colour].rgb, rng)
    if pattern is None:
        pattern = str(rng.choice(list(PATTERNS)[1:])) if rng.random() < leaf.patterned else "plain"
    others = [name for name in COLOURS if _distance(COLOURS[name].rgb, rgb) > 170]
    motif = "white" if "white" in others and rng.random() < 0.55 else str(rng.choice(others))
    accents = [name for name in COLOURS if _distance(COLOURS[name].rgb, rgb) > 60]
    accent = colour if rng.random() < 0.35 else str(rng.choice(accents))
    material = str(rng.choice(leaf.materials))
    brand = BRANDS[min(int(rng.exponential(len(BRANDS) / 4)), len(BRANDS) - 1)]
    accent_rgb = _shade(COLOURS[accent].rgb, rng)
    if accent == colour:
        accent_rgb = tuple(int(channel * 0.82) for channel in rgb)  # type: ignore[assignment]
    if shape is None:
        shape = {key: words[int(rng.integers(len(words)))] for key, words in leaf.shapes.items()}
    letters = "ABCDEFGHJKLMNPRSTUVWXYZ"
    return Design(
        index=index,
        leaf=leaf,
        split=split,
        colour=colour,
        accent=accent,
        pattern=pattern,
        material=material,
        shape=shape,
        brand=brand,
        model_code="".join(rng.choice(list(letters), 2)) + f"-{rng.integers(1000, 10000)}",
        form=tuple(rng.uniform(-1, 1, 8).tolist()),
        rgb=rgb,
        motif_rgb=_shade(COLOURS[motif].rgb, rng),
        accent_rgb=accent_rgb,
        pattern_scale=float(rng.uniform(0.75, 1.5)),
        pattern_angle=float(rng.choice([0.0, 0.0, 45.0, 90.0]) + rng.normal(0, 3)),
        charm=float(rng.normal()),
    )


@lru_cache(maxsize=4096)
def _shuffled(seed: int, kind: int, block: int, n: int) -> tuple[int, ...]:
    return tuple(stream(seed, kind, block).permutation(n).tolist())


def _distance(a: RGB, b: RGB) -> float:
    return float(np.linalg.norm(np.subtract(a, b)))


def _shade(rgb: RGB, rng: np.random.Generator) -> RGB:
    """A random shade of the colour, close enough to keep its name."""
    h, l, s = colorsys.rgb_to_hls(*(channel / 255 for channel in rgb))  # noqa: E741
    h, l, s = (h + rng.uniform(-0.014, 0.014)) % 1, l + rng.uniform(-0.045, 0.045), s * rng.uniform(0.85, 1.1)  # noqa: E741
    r, g, b = colorsys.hls_to_rgb(h, min(max(l, 0.08), 0.96), min(s, 1))
    return round(r * 255), round(g * 255), round(b * 255)
