"""What each document and each photo shows and which flaw it has, before anything is drawn.

Any process can make any part of the records from the plan. It is the same in each process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from shoplens.synthetic.catalogue import Catalogue, Design
from shoplens.synthetic.raw_records.settings import RawRecords

PHOTOS_PER_TAR = 1000
BLOCK = 512
"""Documents among which those of a product are scattered. Few tars hold photos of the same product, for speed."""
PHOTO_FLAWS = (
    "short_side",
    "aspect",
    "white",
    "truncated",
    "not_an_image",
    "animated",
    "blurred",
    "watermark",
    "text_boxes",
)
DUPLICATE = "duplicate"
SUFFIXES = ("jpg", "png", "webp", "gif")
_LEAST_DESIGNS = 30
"""One of each leaf category, so that there is always another product."""

PLAN, DOCUMENT, PHOTO, COPY = range(4)
"""Kinds of random streams."""


def stream(seed: int, kind: int, number: int) -> np.random.Generator:
    """The random stream of a kind and a number."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 101, kind, number])))


def opaque(letter: str, number: int, seed: int) -> str:
    """An id that does not tell the order. Numbers below 10^9 have distinct ids."""
    return f"{letter}{(number * 387_420_489 + seed * 1_000_003 + 161_803_398) % 10**9:09d}"


@dataclass(frozen=True)
class Plan:
    """The plan. Products are numbers of designs.

    titled, shown   int64 [documents]: the product of the title and queries, and that of the photos
    first_photo     int64 [documents + 1]: number of each document's first photo
    document        int64 [photos]
    flaw            int8 [photos]: number in `PHOTO_FLAWS`, or -1
    original        int64 [photos]: the photo that this one copies, or -1
    suffix          int8 [photos]: number in `SUFFIXES`
    """

    settings: RawRecords
    titled: np.ndarray
    shown: np.ndarray
    first_photo: np.ndarray
    document: np.ndarray
    flaw: np.ndarray
    original: np.ndarray
    suffix: np.ndarray

    @property
    def photos(self) -> int:
        return len(self.document)

    @property
    def tars(self) -> int:
        return -(-self.photos // PHOTOS_PER_TAR)

    def in_tar(self, tar: int) -> range:
        """Numbers of the photos in a tar."""
        return range(tar * PHOTOS_PER_TAR, min((tar + 1) * PHOTOS_PER_TAR, self.photos))

    def document_id(self, document: int) -> str:
        return opaque("D", document, self.settings.seed)

    def member(self, photo: int) -> str:
        """The name of a photo in its tar."""
        return f"{opaque('I', photo, self.settings.seed)}.{SUFFIXES[self.suffix[photo]]}"

    def image(self, photo: int) -> str:
        """The path of a photo, which goes through its tar."""
        return f"{tar_name(photo // PHOTOS_PER_TAR)}/{self.member(photo)}"

    def photos_of(self, document: int) -> range:
        """Numbers of a document's photos."""
        return range(int(self.first_photo[document]), int(self.first_photo[document + 1]))

    def flaw_of(self, photo: int) -> str | None:
        """The photo's flaw, one of `PHOTO_FLAWS` or `DUPLICATE`."""
        if self.original[photo] >= 0:
            return DUPLICATE
        return PHOTO_FLAWS[self.flaw[photo]] if self.flaw[photo] >= 0 else None

    @cached_property
    def star(self) -> int | None:
        """The photo that very many queries lead to: the first one that is clean and belongs to its title."""
        belongs = (self.titled == self.shown)[self.document]
        clean = np.flatnonzero((self.flaw < 0) & (self.original < 0) & belongs)
        return int(clean[0]) if len(clean) and self.settings.skew else None

    @cached_property
    def products(self) -> Products:
        return _products(self.settings)


@dataclass(frozen=True)
class Products:
    """All products. `department`: int64 [designs], numbers of the top category."""

    catalogue: Catalogue
    department: np.ndarray

    def design(self, number: int) -> Design:
        return self.catalogue.design(number)

    def another(self, product: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A product of another department for each one, int64 [n]."""
        found = np.array(product)
        while len(same := np.flatnonzero(self.department[found] == self.department[product])):
            found[same] = rng.integers(len(self.department), size=len(same))
        return found


def tar_name(tar: int) -> str:
    return f"photos-{tar:06d}.tar"


@lru_cache(maxsize=2)
def _products(settings: RawRecords) -> Products:
    designs = max(_LEAST_DESIGNS, -(-settings.records // settings.documents_per_product))
    catalogue = Catalogue(settings.seed, designs, 1, (("train", 1.0),))
    names: dict[str, int] = {}
    tops = [names.setdefault(catalogue.leaf(number).path[0], len(names)) for number in range(designs)]
    return Products(catalogue, np.array(tops))


@lru_cache(maxsize=2)
def plan_of(settings: RawRecords) -> Plan:
    """The plan of these settings."""
    rng, n = stream(settings.seed, PLAN, 0), settings.records
    place = np.empty(n, np.int64)
    place[np.lexsort((rng.random(n), np.arange(n) // BLOCK))] = np.arange(n)
    shown = place // settings.documents_per_product
    mismatched = rng.random(n) < settings.mismatched
    copies = (rng.random(n) < settings.duplicates) & ~mismatched
    counts = 1 + rng.choice(len(settings.photos), n, p=np.array(settings.photos) / sum(settings.photos))
    first_photo = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    document = np.repeat(np.arange(n), counts)
    photos = len(document)

    flawed = rng.random(photos) < settings.photo_flaws
    flaw = np.where(flawed, rng.integers(len(PHOTO_FLAWS), size=photos), -1).astype(np.int8)
    original = np.full(photos, -1)
    sources = np.flatnonzero((flaw < 0) & ~copies[document])
    if len(sources):
        at = first_photo[:-1][copies]
        original[at] = rng.choice(sources, len(at))
        flaw[at] = -1
        shown[copies] = shown[document[original[at]]]
    titled = shown.copy()
    titled[mismatched] = _products(settings).another(shown[mismatched], rng)

    suffix = rng.choice(3, photos, p=[0.94, 0.03, 0.03])
    suffix = np.where(flaw == PHOTO_FLAWS.index("animated"), rng.integers(1, 4, size=photos), suffix)
    suffix[(flaw == PHOTO_FLAWS.index("not_an_image")) | (original >= 0)] = 0
    return Plan(settings, titled, shown, first_photo, document, flaw, original, suffix.astype(np.int8))
