"""Shards as they are written: headers are those of tarfile, and the manifest holds the checksum of every file."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from shoplens.datasets.staging import Staging, _header


@given(st.text("abcXYZ019_-./가", min_size=1, max_size=130), st.integers(0, 8**11 + 5))
@example("a" * 100, 8**11 - 1)
@example("a" * 101, 0)
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = size, 0
    assert _header(name, size) == info.tobuf(tarfile.PAX_FORMAT)


def test_the_manifest_holds_the_checksum_of_every_file(tmp_path: Path) -> None:
    """Also where a shard is closed only after its chunk is written."""
    staging = Staging(str(tmp_path / "shop"), {})
    staging.begin()
    images = []
    late = staging.shard("train-000001.tar")
    with staging.shard("train-000000.tar") as shard:
        for number in range(3):
            data = bytes([number]) * (700_000 * number + 5)
            place = {"image_id": f"i{number}", "product_id": "p", "split": "train", "shard": "train-000000.tar"}
            images.append(place | {"offset": shard.add(f"i{number}", data, "jpg", "{}"), "length": len(data)})
    late.add("late", b"x", "jpg", "{}")
    staging.write_chunk("0", {"products": [{"product_id": "p", "title": "t"}], "images": images})
    late.__exit__(None, None, None)
    dataset = staging.finish("shop", {})
    assert dataset.read_image(2) == bytes([2]) * 1_400_005
    files = dataset.manifest.files
    assert {"shards/train-000000.tar", "shards/train-000001.tar", "images.parquet"} <= files.keys()
    for name, checksum in files.items():
        assert hashlib.sha256((tmp_path / "shop" / name).read_bytes()).hexdigest() == checksum
    with tarfile.open(tmp_path / "shop/shards/train-000000.tar") as tar:
        assert [member.size for member in tar] == [5, 2, 700_005, 2, 1_400_005, 2]
