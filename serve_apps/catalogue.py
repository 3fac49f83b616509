"""The shop under an index: what answers show of its products, and its photos."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from serve_apps.release import Release
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError
from shoplens.retrieval.index import Index

MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


class Catalogue:
    """One index and the dataset it was built from; safe from many threads."""

    def __init__(self, release: Release, dim: int) -> None:
        """Raises ShoplensError if there is no index, or one that is not of this version and of the dataset as it is."""
        assert release.index is not None
        self.index = Index.load(release.index)
        about = self.index.about
        built_for = f"{about.get('model')}/{about.get('version')}"
        if (built_for, self.index.dimension) != (release.version, dim):
            raise ShoplensError(
                f"the index {release.index} was built for {built_for} with vectors of {self.index.dimension}, "
                f"not for {release.version} with {dim}: build it again"
            )
        self.dataset = Dataset(about["dataset_path"])
        if self.dataset.digest != about["dataset_digest"]:
            raise ShoplensError(f"{self.dataset.path} has changed since the index was built: build the index again")
        self.digest = self.dataset.digest[:12]

    @property
    def name(self) -> str:
        """`NAME@digest12`, as answers name it."""
        return f"{self.dataset.name}@{self.digest}"

    def page(
        self, category: str | None, price_min: float | None, price_max: float | None, offset: int, limit: int
    ) -> tuple[int, list[dict[str, Any]]]:
        """How many products there are, and the cards of `limit` of them. Raises UnknownCategory."""
        total, cards = self.index.page(category, offset, limit, price_min=price_min, price_max=price_max)
        return total, [self._shown(card) for card in cards]

    def cards(self, product_ids: list[str]) -> list[dict[str, Any]]:
        return [self._shown(card) for card in self.index.cards(product_ids)]

    def product(self, product_id: str) -> dict[str, Any]:
        """A card with description, attributes and all photos. Raises UnknownProduct."""
        found = self.index.product(product_id)
        image_ids = found.pop("image_ids")
        shown = self._shown(found)
        return {**shown, "description": shown["description"] or "", "images": [self._url(i) for i in image_ids]}

    def categories(self) -> list[dict[str, Any]]:
        """The tree, depth first."""
        return [{"id": row.pop("category_id"), **row} for row in self.index.categories()]

    def photo(self, image_id: str) -> tuple[bytes, str, str]:
        """Bytes as they came, media type, SHA-256. Raises UnknownImage."""
        sample = self.index.sample_of(image_id)
        row = self.dataset.images.slice(sample, 1).select(["format", "sha256"]).to_pylist()[0]
        return self.dataset.read_image(sample), MEDIA_TYPES[row["format"]], row["sha256"]

    def _shown(self, card: dict[str, Any]) -> dict[str, Any]:
        return {**card, "image": self._url(card.pop("image_id"))}

    def _url(self, image_id: str) -> str:
        """The digest makes the address change with the dataset, so that it may be cached for good."""
        return f"/v1/images/{quote(image_id, safe='')}?dataset={self.digest}"
