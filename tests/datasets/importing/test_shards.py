"""Shards of an import."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from shoplens.datasets.importing import PhotoRules
from shoplens.datasets.importing.plan import plan_import
from shoplens.datasets.importing.shards import write_shard
from shoplens.datasets.importing.table import Table
from shoplens.datasets.staging import Staging


def test_threads_that_decode_change_nothing(tmp_path: Path) -> None:
    for number in range(20):
        Image.effect_noise((30, 30), number + 1).save(tmp_path / f"{number}.png")
    (tmp_path / "7.png").write_bytes((tmp_path / "6.png").read_bytes())
    (tmp_path / "8.png").write_bytes(b"broken")
    rows = [
        {"id": f"p{n // 4}", "title": "t", "images": [f"{k}.png" for k in range(n, n + 4)]} for n in range(0, 20, 4)
    ]
    (tmp_path / "products.jsonl").write_text("\n".join(map(json.dumps, rows)))
    digests = set()
    for decoders in (1, 3):
        staging = Staging(str(tmp_path / f"out{decoders}"), {})
        staging.begin()
        for chunk in plan_import(Table(str(tmp_path / "products.jsonl")), staging, 1000):
            write_shard(staging, chunk, PhotoRules(), decoders)
        dataset = staging.finish("shop", {})
        digests.add(dataset.digest)
        assert dataset.table("rejects")["reason"].to_pylist() == ["duplicate_photo", "unreadable"]
    assert len(digests) == 1
