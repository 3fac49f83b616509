"""Small raw tables for the tests of the pipeline, and workers that do the parts in this process."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from shoplens.config import validate
from shoplens.curation.pipeline.config import CurationConfig
from shoplens.curation.pipeline.curate import Part, Work, curate
from shoplens.curation.pipeline.finishing import Curated
from shoplens.curation.pipeline.learned import Models

COLOURS = {"빨간": (200, 30, 30), "파란": (30, 60, 200), "초록": (30, 160, 60)}
"""Of all photos; the titles name them."""
FRENCH = "Chemise à manches courtes pour homme"


def picture(seed: int, colour: tuple[int, int, int], size: tuple[int, int] = (240, 220)) -> Image.Image:
    """A picture of one colour with big blots, unlike every other seed's."""
    rng = np.random.default_rng(seed)
    small = np.clip(np.array(colour) + rng.normal(0, 45, (7, 7, 1)), 0, 255).astype(np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_raw(folder: Path, documents: int = 30, seed: int = 3) -> Path:
    """Documents of one to three photos, every tenth photo a copy of an earlier one or one that is dropped, and clicks."""
    rng = random.Random(seed)
    (folder / "files").mkdir(parents=True)
    photos: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    clicks: list[dict[str, Any]] = []
    originals: list[Image.Image] = []
    with tarfile.open(folder / "archive.tar", "w") as archive:
        for document in range(documents):
            name = rng.choice(sorted(COLOURS))
            title = {7: "문의 010-1234-5678", 11: "로또 1등 번호", 15: FRENCH}.get(document, f"{name} 가방 {document}")
            rows.append({"document_id": f"d{document}", "title": title, "source": ["blog", "shop"][document % 2]})
            for position in range(rng.randint(1, 3)):
                number = len(photos)
                image, kind, options = picture(number, COLOURS[name]), "JPEG", {"quality": 90}
                if number % 10 == 4:
                    image, options = originals[rng.randrange(len(originals))], {"quality": 60}
                elif number % 10 == 7:
                    image = image.resize((240, 150))
                elif number % 10 == 9:
                    kind, options = "PNG", {}
                originals.append(image)
                data = encoded(image, kind, **options)
                if number % 13 == 12:
                    data = data[: len(data) // 2]
                path = f"files/{number}.jpg"
                if number % 2:
                    member = tarfile.TarInfo(f"in/{number}.jpg")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
                    path = f"archive.tar/in/{number}.jpg"
                else:
                    (folder / path).write_bytes(data)
                photos.append({"image": path, "document_id": f"d{document}", "position": position})
    for _ in range(4 * documents):
        photo = rng.choice(photos)
        query = f"{rng.choice(sorted(COLOURS))} {rng.choice(['가방', '구두', '모자'])}"
        named = photo["image"] if rng.random() < 0.4 else None
        clicks.append(
            {"query": query, "document_id": photo["document_id"], "image": named, "clicks": rng.randint(1, 9)}
        )
    clicks += [{"query": "ㅅㅂ 뭐야", "document_id": "d0", "image": None, "clicks": 3}]
    for table, entries in (("photos", photos), ("documents", rows), ("clicks", clicks)):
        pq.write_table(pa.Table.from_pylist(entries), folder / f"{table}.parquet")
    return folder


class ColourScorer:
    """Photos and texts in the space of colours: a text is the colour that it names."""

    def encode_photos(self, photos: Sequence[Image.Image]) -> np.ndarray:
        return self._unit([np.asarray(photo, float).mean(axis=(0, 1)) for photo in photos])

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._unit([COLOURS.get(text.split()[0], (128, 128, 128)) for text in texts])

    @staticmethod
    def _unit(rows: Sequence[Any]) -> np.ndarray:
        vectors = np.asarray(rows, float) - 110
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def settings(raw: Path, out: Path, **more: Any) -> CurationConfig:
    """Small parts and shards."""
    tree = {
        "raw": str(raw),
        "out": str(out),
        "parts": {"photos": 9, "texts": 10, "learned": 7},
        "shards": {"records": 8, "val": 0.1, "test": 0.1},
    }
    return validate(CurationConfig, {**tree, **more}, "the test")


def run(
    config: CurationConfig,
    models: Callable[[], Models] = Models,
    *,
    backwards: bool = False,
    before: Callable[[Part], None] = lambda part: None,
    overwrite: bool = False,
) -> Curated:
    """Curates in this process. `before` is called before each part; what it raises ends the run."""

    def here(
        work: Work | None,
        parts: Sequence[Part],
        what: str,
        total: int,
        prepare: Callable[[], Work] | None = None,
    ) -> None:
        do = work or (prepare and prepare())
        assert do is not None
        done = 0
        for part in reversed(parts) if backwards else parts:
            before({**part, "what": what})
            done += do(part)
        assert done == total

    names = {} if models is Models else {"score": "colours/1"}
    return curate(config, names, models, here, overwrite)


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of the shards and tables of a dataset."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".tar", ".parquet")
    }
