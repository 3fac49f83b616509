"""The texts of each photo, of which training draws one: titles and queries of `image_texts.parquet`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from pydantic import Field

from shoplens.config import Config
from shoplens.datasets.format import Dataset
from shoplens.errors import ShoplensError


class ImageTextsConfig(Config):
    """NAVER Search found queries better to learn from than titles of documents, so titles are drawn less often."""

    title_share: float = Field(
        0.3, ge=0, le=1, description="Probability of a title, where a photo has both titles and queries."
    )
    least_score: float | None = Field(
        None, description="Least score of a text with its photo; photos without such a text are left out. null: any."
    )
    photos: int | None = Field(
        None,
        ge=1,
        description="Most photos to train on, drawn by the seed, to compare limits at equal size. null: all.",
    )


@dataclass(frozen=True)
class ImageTexts:
    """Texts by photo. Those of sample `s` are `texts[start[s]:start[s + 1]]`, titles first.

    start    int64 [photos + 1]
    titles   int64 [photos]: how many of them are titles; captions and texts of products count as such
    weight   float64 [texts]: of titles 1, of queries log(1 + clicks)
    """

    texts: list[str]
    start: np.ndarray
    titles: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, dataset: Dataset, least_score: float | None = None) -> ImageTexts:
        """The texts whose score is at least `least_score`.

        Raises ShoplensError if the dataset has no such table, if a photo has no text in it, or if there are no scores.
        """
        if "image_texts" not in dataset.manifest.counts:
            raise ShoplensError(
                f"{dataset.path} has no image_texts.parquet: make the dataset with `workloads.curate`, "
                "or leave out image_texts"
            )
        table = dataset.table("image_texts")
        if least_score is not None:
            if table["score"].null_count == len(table):
                raise ShoplensError(
                    f"the texts of {dataset.path} have no scores: curate with learned.score, or leave out least_score"
                )
            table = table.filter(pc.greater_equal(table["score"], least_score))
        row_of = {image: row for row, image in enumerate(dataset.images["image_id"].to_pylist())}
        photo = np.array([row_of[image] for image in table["image_id"].to_pylist()], np.int64)
        is_query = table["source"].to_numpy(zero_copy_only=False) == "query"
        order = np.lexsort((is_query, photo))
        photos = len(row_of)
        start = np.searchsorted(photo[order], np.arange(photos + 1))
        if least_score is None and (bare := np.flatnonzero(np.diff(start) == 0)).size:
            image = dataset.images["image_id"][int(bare[0])].as_py()
            raise ShoplensError(f"photo {image} of {dataset.path} has no text in image_texts.parquet: curate it again")
        texts = table["text"].to_pylist()
        count = np.where(is_query, np.log1p(table["count"].fill_null(0).to_numpy()), 1.0)
        return cls(
            [texts[row] for row in order],
            start,
            np.bincount(photo[~is_query], minlength=photos),
            count[order],
        )

    def draw(self, sample: int, rng: np.random.Generator, title_share: float) -> str:
        """One text of a photo: a title with probability `title_share`, if it has both kinds, else a query by weight."""
        first, last = int(self.start[sample]), int(self.start[sample + 1])
        queries = first + int(self.titles[sample])
        title = rng.random() < title_share
        if queries == last or (title and queries > first):
            last = queries
        else:
            first = queries
        weight = self.weight[first:last]
        total = weight.sum()
        return self.texts[first + int(rng.choice(last - first, p=weight / total if total else None))]
