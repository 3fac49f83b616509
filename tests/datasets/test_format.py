"""Reading a dataset folder, also one that was written before the format had all its columns."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shoplens.datasets.format import PRODUCTS, Dataset
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError


def made(folder: Path) -> Dataset:
    staging = Staging(str(folder), {})
    staging.begin()
    with staging.shard("train-000000.tar") as shard:
        image = {"image_id": "i", "product_id": "p", "split": "train", "shard": "train-000000.tar", "length": 1}
        image |= {"offset": shard.add("i", b"x", "jpg", "{}")}
    product = {"product_id": "p", "title": "t", "category_path": ["a"], "category_id": "a", "stock": 5}
    product |= {"attributes": [("size", ["M"])], "texts": [("title_en", "e")], "price": 1.0}
    staging.write_chunk("0", {"products": [product], "images": [image]}, extra={"truth": TRUTH})
    return staging.finish("shop", {}, extra={"truth": TRUTH})


TRUTH = pa.schema([("product_id", pa.string())])


def test_a_column_that_was_not_written_is_null(tmp_path: Path) -> None:
    dataset = made(tmp_path / "shop")
    whole = dataset.products
    assert whole["stock"].to_pylist() == [5]
    file = tmp_path / "shop" / "products.parquet"
    pq.write_table(pq.read_table(file).drop_columns("stock"), file)
    old = Dataset(dataset.path)
    assert old.products.schema == PRODUCTS
    assert old.products["stock"].to_pylist() == [None]
    assert old.products.drop_columns("stock") == whole.drop_columns("stock")
    assert old.table("products", ["title", "stock"]).to_pylist() == [{"title": "t", "stock": None}]
    assert old.table("truth").schema.names == ["product_id"]
    assert old.digest == dataset.digest


def test_what_was_begun_with_other_columns_is_begun_anew(tmp_path: Path) -> None:
    """Chunks of the one and of the other would not fit together."""
    staging = Staging(str(tmp_path / "shop"), {"source": "x"})
    staging.begin()
    staging.write_chunk("0", {})
    assert staging.begin()
    mark = Path(staging.root) / "fingerprint.json"
    mark.write_text(mark.read_text().replace('"stock", ', ""))
    assert not staging.begin()
    assert not staging.is_done("0")


@pytest.mark.parametrize("shard", ["../../secret.txt", "/etc/passwd", "..", "a/train-0.tar", "", None])
def test_a_shard_lies_in_the_folder_of_shards(tmp_path: Path, shard: str | None) -> None:
    dataset = made(tmp_path / "shop")
    assert dataset.read_image(0) == b"x"
    file = tmp_path / "shop" / "images.parquet"
    table = pq.read_table(file)
    pq.write_table(
        table.set_column(table.schema.get_field_index("shard"), "shard", pa.array([shard], pa.string())), file
    )
    with pytest.raises(ShoplensError, match="names the shard"):
        Dataset(dataset.path).read_image(0)
