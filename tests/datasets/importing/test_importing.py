"""Importing: what is taken, what is kept out and why, and that an interrupted import ends like any other."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from shoplens.datasets.format import Dataset
from shoplens.datasets.images import HASH_SIDE, decode, perceptual_hash
from shoplens.datasets.importing import PhotoRules, import_dataset, summary
from shoplens.datasets.importing.plan import locate, plan_import
from shoplens.datasets.importing.product import read_product
from shoplens.datasets.importing.shards import write_shard
from shoplens.datasets.importing.shoppers import ShopperTables
from shoplens.datasets.importing.source import SourceProduct, webdataset_key
from shoplens.datasets.importing.table import Table
from shoplens.datasets.importing.tars import BrokenTar, members
from shoplens.datasets.importing.webdataset import WebDataset
from shoplens.datasets.staging import Staging
from shoplens.errors import ShoplensError
from shoplens.schema import Product
from tests.datasets.importing.shops import jpeg, rejects, run_here, shop, write_table


def test_a_good_table_is_imported_whole(tmp_path: Path, ray_local: None) -> None:
    path = shop(tmp_path / "shop")
    dataset = import_dataset("jsonl", path, str(tmp_path / "out"), photos_per_shard=3, progress=False)

    assert dataset.manifest.counts == {
        "images": 12,
        "products": 6,
        "rejects": 0,
        "topics": 0,
        "interactions": 0,
        "categories": 3,
    }
    assert dataset.manifest.photos_by_split == {"test": 4, "train": 8}
    product = dataset.products.to_pylist()[1]
    assert product["product_id"] == "p1"
    assert product["title"] == "상품 1"
    assert dict(product["attributes"]) == {"color": ["red"], "sizes": ["S", "M"], "year": ["2020"]}
    assert product["category_id"] == "clothing/hats"
    assert dataset.products["stock"].to_pylist() == [0, 3, 6, 9, 12, 15]
    for sample, row in enumerate(dataset.images.to_pylist()):
        p, k = int(row["product_id"][1:]), int(row["image_id"].rpartition("_")[2])
        data = dataset.read_image(sample)
        assert data == jpeg(100 * p + k)
        assert (row["width"], row["height"], row["format"]) == (48, 48, "jpg")
        assert row["phash"] == perceptual_hash(decode(data, draft=HASH_SIDE, grey=True).image)
        assert row["split"] == ("test" if p % 3 == 0 else "train")
    assert "12 photos" in summary(dataset)
    assert not (tmp_path / "out.partial").exists()


def test_the_digest_depends_on_the_input_alone(tmp_path: Path, ray_local: None) -> None:
    path = shop(tmp_path / "shop", products=9)
    digests = {
        import_dataset("jsonl", path, str(tmp_path / "ray"), photos_per_shard=2, progress=False).digest,
        import_dataset("jsonl", path, str(tmp_path / "ray"), photos_per_shard=2, progress=False, overwrite=True).digest,
        run_here(Table(path), tmp_path / "one", per_shard=2, seed=1).digest,
        run_here(Table(path), tmp_path / "two", per_shard=2, seed=2).digest,
    }
    assert len(digests) == 1
    (tmp_path / "shop/images/0_0.jpg").write_bytes(jpeg(999))
    assert run_here(Table(path), tmp_path / "three", per_shard=2).digest not in digests


def test_every_bad_row_and_photo_is_listed_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    good = jpeg(1)
    files = {
        "good.jpg": good,
        "copy.jpg": good,
        "other.jpg": jpeg(2),
        "empty.jpg": b"",
        "text.jpg": b"this is no image",
        "cut.jpg": jpeg(3, 300)[:-500],
        "dot.jpg": jpeg(4, 1),
        "tiny.jpg": jpeg(5, 7),
        "really.png": jpeg(6),
    }
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    moving = io.BytesIO()
    Image.new("RGB", (20, 20)).save(
        moving, "GIF", save_all=True, append_images=[Image.new("RGB", (20, 20), "red")], duration=50
    )
    (folder / "moving.jpg").write_bytes(moving.getvalue())
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (tmp_path / "secret.jpg").write_bytes(jpeg(7))
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")

    def row(number: int, images: Any, **fields: Any) -> dict[str, Any]:
        return {"id": f"p{number}", "title": "x", "images": images, "category_path": ["A", "B"], **fields}

    path = write_table(
        folder,
        [
            row(0, ["good.jpg", "copy.jpg", "other.jpg", "good.jpg"]),  # 1
            '{"id": "p1", "title": ',  # 2
            "[1, 2]",  # 3
            row(0, ["other.jpg"]),  # 4: same id
            {"id": "p4", "images": ["good.jpg"]},  # 5: no title
            row(5, ["good.jpg"], price=-1),  # 6
            row(6, ["good.jpg"], category_path=["A", "B"], category_id="elsewhere"),  # 7
            row(7, ["good.jpg"], category_path=["C"], category_id="a/b"),  # 8
            row(
                8,
                [
                    "good.jpg",
                    "../secret.jpg",
                    "/etc/passwd",
                    "link.jpg",
                    "",
                    "gone.jpg",
                    "folder.jpg",
                    "pipe.jpg",
                ],
            ),
            row(9, ["empty.jpg", "text.jpg", "cut.jpg", "dot.jpg", "tiny.jpg", "moving.jpg", "really.png"]),
            row(10, ["gone.jpg"]),  # 11: no photo is left
            row(11, []),
            row(
                12,
                [
                    "good.jpg",
                    5,
                    {"role": "back"},
                    {"path": "other.jpg", "role": "back", "split": "Bad Split"},
                ],
            ),
            '{"id": "p13", "title": "\\ud800", "images": ["good.jpg"]}',
            '{"id": "p14", "title": "x", "description": "\\ud800", "images": ["good.jpg"]}',
            row(15, ["good.jpg"], review_count=10**30),
            "[" * 100_000,
            row(17, ["file:///etc/passwd", "ftp://example.com/a.jpg", "http://127.0.0.1:9/a.jpg"]),
            row(18, [{"path": "good.jpg", "role": "front"}]),
        ],
    )
    dataset = run_here(Table(path), tmp_path / "out", per_shard=4)

    assert dataset.images.select(["product_id", "role"]).to_pylist() == [
        {"product_id": product, "role": role}
        for product, role in [
            ("p0", "photo"),
            ("p0", "photo"),
            ("p5", "photo"),
            ("p6", "photo"),
            ("p7", "photo"),
            ("p8", "photo"),
            ("p9", "photo"),
            ("p9", "photo"),
            ("p12", "photo"),
            ("p14", "photo"),
            ("p15", "photo"),
            ("p18", "front"),
        ]
    ]
    assert sorted(rejects(dataset), key=str) == sorted(
        [
            ("duplicate_photo", "products.jsonl:1", "p0", "copy.jpg"),
            ("duplicate_photo", "products.jsonl:1", "p0", "good.jpg"),
            ("malformed_row", "products.jsonl:2", None, None),
            ("malformed_row", "products.jsonl:3", None, None),
            ("duplicate_product", "products.jsonl:4", "p0", None),
            ("invalid_row", "products.jsonl:5", "p4", None),
            ("field", "products.jsonl:6", "p5", None),
            ("field", "products.jsonl:7", "p6", None),
            ("field", "products.jsonl:8", "p7", None),
            ("outside_source", "products.jsonl:9", "p8", "../secret.jpg"),
            ("outside_source", "products.jsonl:9", "p8", "/etc/passwd"),
            ("outside_source", "products.jsonl:9", "p8", "link.jpg"),
            ("invalid_photo", "products.jsonl:9", "p8", '{"path": ""}'),
            ("missing_file", "products.jsonl:9", "p8", "gone.jpg"),
            ("missing_file", "products.jsonl:9", "p8", "folder.jpg"),
            ("missing_file", "products.jsonl:9", "p8", "pipe.jpg"),
            ("empty", "products.jsonl:10", "p9", "empty.jpg"),
            ("unreadable", "products.jsonl:10", "p9", "text.jpg"),
            ("truncated", "products.jsonl:10", "p9", "cut.jpg"),
            ("too_small", "products.jsonl:10", "p9", "dot.jpg"),
            ("too_small", "products.jsonl:10", "p9", "tiny.jpg"),
            ("missing_file", "products.jsonl:11", "p10", "gone.jpg"),
            ("no_photo", None, "p10", None),
            ("no_photo", None, "p11", None),
            ("invalid_photo", "products.jsonl:13", "p12", "5"),
            ("invalid_photo", "products.jsonl:13", "p12", '{"role": "back"}'),
            ("invalid_photo", "products.jsonl:13", "p12", "other.jpg"),
            ("invalid_row", "products.jsonl:14", "p13", None),
            ("field", "products.jsonl:15", "p14", None),
            ("field", "products.jsonl:16", "p15", None),
            ("malformed_row", "products.jsonl:17", None, None),
            ("url_scheme", "products.jsonl:18", "p17", "file:///etc/passwd"),
            ("url_scheme", "products.jsonl:18", "p17", "ftp://example.com/a.jpg"),
            ("url_private", "products.jsonl:18", "p17", "http://127.0.0.1:9/a.jpg"),
            ("no_photo", None, "p17", None),
        ],
        key=str,
    )
    assert dataset.manifest.rejects_by_reason == dict(Counter(sorted(reason for reason, *_ in rejects(dataset))))
    details = {row["source"]: row["detail"] for row in dataset.table("rejects").to_pylist()}
    assert details["products.jsonl:5"] == "title: Field required; the row has id, images"
    assert details["products.jsonl:6"] == "price: a price is not below 0 (-1); the field is left empty"
    assert "has two ids, 'a/b' and 'elsewhere'; 'a/b' is used" in details["products.jsonl:7"]
    assert "names two places" in details["products.jsonl:8"]
    placed = dict(zip(*(dataset.products[column].to_pylist() for column in ("product_id", "category_id")), strict=True))
    assert (placed["p6"], placed["p7"]) == ("a/b", "c")


def test_the_same_photo_in_two_splits_of_a_product_is_taken_once(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, seed in {"a": 1, "a_again": 1, "b": 2, "c": 3}.items():
        (folder / f"{name}.jpg").write_bytes(jpeg(seed))
    photos = [{"path": f"{name}.jpg", "split": split} for name, split in [("a", "train"), ("b", "train")]]
    photos += [{"path": f"{name}.jpg", "split": "test"} for name in ("a_again", "c")]
    path = write_table(
        folder, [{"id": "p", "title": "x", "images": photos}, {"id": "q", "title": "y", "images": "a.jpg"}]
    )
    dataset = run_here(Table(path), tmp_path / "out", per_shard=1)
    assert [(row["split"], row["image_id"]) for row in dataset.images.to_pylist()] == [
        ("test", "p_2"),
        ("test", "p_3"),
        ("train", "p_1"),
        ("train", "q_0"),
    ]
    assert rejects(dataset) == [("duplicate_photo", "products.jsonl:1", "p", "a.jpg")]
    assert len(list((tmp_path / "out/shards").iterdir())) == 4
    assert not {"p_0.jpg"} & {
        member.name for shard in (tmp_path / "out/shards").iterdir() for member in members(str(shard))
    }


def test_products_of_inner_categories_and_odd_spellings(tmp_path: Path) -> None:
    """An id given late to a parent, and two names with one slug, are a tree all the same."""
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(1))
    places: list[tuple[Any, str | None]] = [
        (["A", "B"], "77"),
        (["A"], "7"),
        (["T-Shirts"], None),
        ("T Shirts", None),
        ("A > B > C", None),
        ([], "solo"),
        ([], None),
    ]
    rows = [
        {"id": f"p{n}", "title": "x", "images": ["a.jpg"], "category_path": path, "category_id": category_id}
        for n, (path, category_id) in enumerate(places)
    ]
    dataset = run_here(Table(write_table(folder, rows)), tmp_path / "out")
    assert rejects(dataset) == []
    tree = dataset.categories
    assert tree["77"].parent_id == "7"
    ids = dataset.products["category_id"].to_pylist()
    assert ids[:3] == ["77", "7", "t-shirts"]
    assert ids[3].startswith("t-shirts-")
    assert ids[4:] == ["a/b/c", "solo", None]
    assert [tree[i].path for i in ids[:6]] == [
        ("A", "B"),
        ("A",),
        ("T-Shirts",),
        ("T Shirts",),
        ("A", "B", "C"),
        ("solo",),
    ]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_the_same_shop_in_every_kind_of_table(tmp_path: Path, suffix: str) -> None:
    path = Path(shop(tmp_path / "shop"))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    other = path.with_name(f"other.{suffix}")
    match suffix:
        case "jsonl":
            other.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))
        case "jsonl.gz":
            other.write_bytes(gzip.compress(path.read_bytes()))
        case "parquet":
            pq.write_table(pa.Table.from_pylist(rows), other)
        case "csv":
            with other.open("w", newline="") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                for row in rows:
                    cells = {
                        "category_path": " > ".join(row["category_path"]),
                        "images": "|".join(row["images"]),
                    }
                    writer.writerow(row | cells | {"attributes": json.dumps(row["attributes"])})
    expected = run_here(Table(str(path)), tmp_path / "one")
    assert run_here(Table(str(other)), tmp_path / "two").digest == expected.digest


def test_fields_that_are_not_ours_are_kept() -> None:
    read = read_product(
        {
            "id": 17,
            "name": "n",
            "title": "t",
            "summary": "s",
            "tags": ["a", "b"],
            "year": 2020,
            "new": True,
            "none": None,
            "empty": "",
            "shipping": {"days": 3},
            "parts": [{"x": 1}],
            "texts": {"ko": "글"},
            "category": "A > B",
        },
        "here",
    )
    assert isinstance(read, SourceProduct)
    product = read.product
    assert (product.id, product.title, product.category_path) == ("17", "t", ("A", "B"))
    assert product.texts == {
        "ko": "글",
        "name": "n",
        "summary": "s",
        "shipping": '{"days": 3}',
        "parts": '[{"x": 1}]',
    }
    assert product.attributes == {"tags": ("a", "b"), "year": ("2020",), "new": ("True",)}
    assert read.notes == ()


def test_topics_and_the_shoppers_log(tmp_path: Path) -> None:
    write_table(
        tmp_path / "src",
        [
            {"id": "t1", "name": "봄 소풍", "kwds": ["floral"], "product_ids": ["p0", "p2"], "date": "2025-04-01"},
            {"id": "t1", "name": "again"},
            {"id": "t2"},
            "not JSON",
        ],
        "topics.jsonl",
    )
    (tmp_path / "src/log.csv").write_text(
        "time,user_id,product_id,kind,topic_id,position,propensity,browser\n"
        "2025-04-01T10:00,u1,p0,impression,t1,3,0.5,firefox\n"
        "2025-04-01T10:01,u1,p0,click,t1,3,,\n"
        "2025-04-01T10:02,u1,p9,click,t1,,,\n"
        "2025-04-01T10:03,u1,p1,stared,,,,\n"
    )
    (tmp_path / "src/topics.csv").write_text("topic_id,name,kwds,product_ids\nt1,봄 소풍,a | b,p0|p2\n")
    table = shop(tmp_path / "src")
    log = str(tmp_path / "src/log.csv")
    dataset = run_here(Table(table), tmp_path / "out", shoppers=ShopperTables(str(tmp_path / "src/topics.jsonl"), log))
    topic = {"topic_id": "t1", "name": "봄 소풍", "kwds": ["floral"], "product_ids": ["p0", "p2"], "date": "2025-04-01"}
    empty = dict.fromkeys(("desc", "cat1", "cat2", "cat3", "cat4"), "")
    assert dataset.table("topics").to_pylist() == [{**empty, **topic}]
    events = dataset.table("interactions").to_pylist()
    assert [(e["kind"], e["topic_id"], e["position"], e["propensity"]) for e in events] == [
        ("impression", "t1", 3, 0.5),
        ("click", "t1", 3, None),
    ]
    assert {(row["source"], row["reason"]) for row in dataset.table("rejects").to_pylist()} == {
        ("topics.jsonl:2", "duplicate_topic"),
        ("topics.jsonl:3", "invalid_row"),
        ("topics.jsonl:4", "malformed_row"),
        ("log.csv:4", "unknown_product"),
        ("log.csv:5", "invalid_row"),
    }
    assert "1 topics, 2 events in the shoppers' log" in summary(dataset)
    from_csv = run_here(Table(table), tmp_path / "csv", shoppers=ShopperTables(str(tmp_path / "src/topics.csv")))
    [row] = from_csv.table("topics").to_pylist()
    assert (row["kwds"], row["product_ids"]) == (["a", "b"], ["p0", "p2"])


def test_photos_from_urls(tmp_path: Path) -> None:
    import http.server
    import threading
    from functools import partial

    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(1))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}"
        rows = [
            {
                "id": "p",
                "title": "x",
                "images": [f"{base}/a.jpg", f"{base}/gone.jpg", {"url": "http://other.example/a.jpg"}],
            }
        ]
        rules = PhotoRules(allow_hosts=("127.0.0.1",), allow_private=True)
        dataset = run_here(Table(write_table(tmp_path, rows)), tmp_path / "out", rules)
        server.shutdown()
    assert dataset.read_image(0) == jpeg(1)
    assert [row[0] for row in rejects(dataset)] == ["url_status", "url_host"]


def test_our_shards_are_read_by_webdataset_and_imported_back(tmp_path: Path) -> None:
    dataset = run_here(Table(shop(tmp_path / "shop")), tmp_path / "out", per_shard=3)
    shards = sorted(str(shard) for shard in (tmp_path / "out/shards").glob("*.tar"))
    theirs = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert [sample["__key__"] for sample in theirs] == dataset.images["image_id"].to_pylist()
    for number, sample in enumerate(theirs):
        assert sample["jpg"] == dataset.read_image(number)
        assert Product.model_validate_json(sample["json"]).id == dataset.images["product_id"][number].as_py()

    again = run_here(WebDataset(str(tmp_path / "out")), tmp_path / "again", per_shard=3)
    assert rejects(again) == []
    same = ["image_id", "product_id", "role", "split", "width", "height", "format", "sha256", "phash"]
    assert again.images.select(same).equals(dataset.images.select(same))
    assert again.products.sort_by("product_id").equals(dataset.products.sort_by("product_id"))
    assert again.table("categories").equals(dataset.table("categories"))


def tar_of(path: Path, files: dict[str, bytes]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def test_other_peoples_webdataset_shards(tmp_path: Path) -> None:
    tar_of(
        tmp_path / "w/val-00001.tar",
        {
            "a/001.jpg": jpeg(1),
            "a/001.txt": "빨간 셔츠".encode(),
            "a/002.jpg": jpeg(2),
            "a/002.json": b'{"caption": "hat", "sku": "7"}',
            "a/003.jpg": jpeg(3),
            "a/004.json": b"{",
            "a/004.jpg": jpeg(4),
            "a/005.front.jpg": jpeg(5),
            "a/005.back.png": jpeg(6),
            "a/005.json": b'{"id": "five", "title": "two views"}',
            "a/006.txt": b"no photo",
        },
    )
    cut = Path(tar_of(tmp_path / "w/zz.tar", {"z.txt": b"z", "z.jpg": jpeg(7), "y.txt": b"y", "y.jpg": jpeg(8)}))
    cut.write_bytes(cut.read_bytes()[: 6 * 512 + len(jpeg(7)) // 512 * 512])
    dataset = run_here(WebDataset(str(tmp_path / "w")), tmp_path / "out")
    assert [(row["product_id"], row["role"], row["split"]) for row in dataset.images.to_pylist()] == [
        ("z", "photo", "train"),
        ("a/001", "photo", "val"),
        ("a/002", "photo", "val"),
        ("five", "front", "val"),
        ("five", "back", "val"),
    ]
    titles = dict(zip(*(dataset.products[column].to_pylist() for column in ("product_id", "title")), strict=True))
    assert titles == {"a/001": "빨간 셔츠", "a/002": "hat", "five": "two views", "z": "z"}
    assert {row[:2] for row in rejects(dataset)} >= {
        ("no_text", "val-00001.tar:a/003"),
        ("malformed_row", "val-00001.tar:a/004"),
        ("broken_shard", "zz.tar"),
        ("no_photo", None),
    }


def test_a_tar_that_breaks_off_is_noticed(tmp_path: Path) -> None:
    path = Path(tar_of(tmp_path / "a.tar", {"a": b"1" * 600, "b": b"2" * 600, "c": b"3"}))
    whole = path.read_bytes()
    assert [member.name for member in members(str(path))] == ["a", "b", "c"]
    for end in (0, 100, 512, 1024, 1536, 2000, 3072, 3500):
        path.write_bytes(whole[:end])
        with pytest.raises(BrokenTar):
            list(members(str(path)))
    path.write_bytes(whole[:1536] + b"garbage!" * 64 + whole[2048:])
    with pytest.raises(BrokenTar):
        list(members(str(path)))


@pytest.mark.parametrize(
    ("identifier", "key"),
    [("24-WG081", "24-WG081"), ("p_1", "p_1"), ("a/b.c", "a-b-c-"), ("신발", ""), ("x" * 200, "x" * 80)],
)
def test_keys(identifier: str, key: str) -> None:
    made = webdataset_key(identifier)
    assert made.startswith(key)
    assert made
    assert not set(made) & set("./ ")
    assert made != webdataset_key(identifier + ".")


@pytest.mark.parametrize("path", ["../a", "a/../../a", "/etc/passwd", "", ".", "a/..", "..", "a\0b"])
@pytest.mark.parametrize("root", ["/data/shop", "/data/shop/", "s3://bucket/shop"])
def test_paths_that_lead_out(root: str, path: str) -> None:
    assert locate(root, path) is None


def test_a_remote_path_cannot_switch_filesystems() -> None:
    assert locate("s3://bucket/shop", "a.jpg::file") is None


def test_paths_within() -> None:
    assert locate("/data/shop", "x/../a.jpg") == "/data/shop/a.jpg"
    assert locate("/", "a.jpg") == "/a.jpg"
    assert locate("s3://bucket/shop", "i/a.jpg") == "s3://bucket/shop/i/a.jpg"
    assert locate("s3://bucket/shop", "s3://bucket/shop/a.jpg") == "s3://bucket/shop/a.jpg"
    assert locate("/data/shop", "https://x.kr/a.jpg") == "https://x.kr/a.jpg"


def test_mistakes_are_told_in_a_sentence(tmp_path: Path, ray_local: None) -> None:
    def told(*args: Any, **options: Any) -> str:
        with pytest.raises(ShoplensError) as error:
            import_dataset(*args, progress=False, **options)
        return str(error.value)

    out = str(tmp_path / "out")
    assert "no importer 'amazon'" in told("amazon", "x", out)
    assert "cannot be read" in told("jsonl", str(tmp_path / "none.jsonl"), out)
    assert "is missing" in told("grocery", str(tmp_path), out)
    assert "no .tar shards" in told("webdataset", str(tmp_path), out)
    path = shop(tmp_path / "shop")
    (tmp_path / "shop/cut.jsonl.gz").write_bytes(gzip.compress(Path(path).read_bytes())[:-20])
    assert "cut short" in told("jsonl", str(tmp_path / "shop/cut.jsonl.gz"), out)
    (tmp_path / "shop/bad.parquet").write_bytes(b"PAR1")
    assert "damaged" in told("parquet", str(tmp_path / "shop/bad.parquet"), out)
    assert "no photo is left (12 too_small" in told("jsonl", path, out, rules=PhotoRules(min_side=500))
    assert not Path(out).exists()
    import_dataset("jsonl", path, out, progress=False)
    assert "exists already" in told("jsonl", path, out)


@pytest.fixture
def large_shop(tmp_path: Path) -> str:
    return shop(tmp_path / "shop", products=240, photos=2)


def test_a_killed_import_is_taken_up_and_ends_the_same(tmp_path: Path, large_shop: str, ray_local: None) -> None:
    out, parts = tmp_path / "out", tmp_path / "out.partial/parts"
    script = (
        "import sys, ray\n"
        "from shoplens.datasets.importing import import_dataset\n"
        "ray.init(address='local', num_cpus=2, include_dashboard=False, object_store_memory=100 * 2**20)\n"
        "import_dataset('jsonl', sys.argv[1], sys.argv[2], photos_per_shard=8, progress=False)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, large_shop, str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 180
        while len(list(parts.glob("t*.done"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for child in children:
            if child.is_running():
                child.kill()
        psutil.wait_procs(children, timeout=10)

    assert not out.exists()
    with pytest.raises(ShoplensError, match="is not a dataset"):
        Dataset(out)
    with pytest.raises(ShoplensError, match="is not a dataset"):
        Dataset(f"{out}.partial")
    done = {path.name: path.stat().st_mtime_ns for path in parts.glob("t*.done")}
    assert 2 <= len(done) < 60

    resumed = import_dataset("jsonl", large_shop, str(out), photos_per_shard=8, progress=False)
    undisturbed = run_here(Table(large_shop), tmp_path / "undisturbed", per_shard=8)
    assert resumed.digest == undisturbed.digest
    assert resumed.manifest.counts["images"] == 480


def test_an_import_resumes_only_what_it_began(tmp_path: Path, ray_local: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that are done are kept; where the table changed in between, everything starts anew."""
    path = shop(tmp_path / "shop")
    out = str(tmp_path / "out")
    monkeypatch.setattr(Staging, "finish", _interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_dataset("jsonl", path, out, photos_per_shard=4, progress=False)
    shards = tmp_path / "out.partial/shards"
    before = {shard.name: shard.stat().st_mtime_ns for shard in shards.iterdir()}
    with pytest.raises(KeyboardInterrupt):
        import_dataset("jsonl", path, out, photos_per_shard=4, progress=False)
    assert {shard.name: shard.stat().st_mtime_ns for shard in shards.iterdir()} == before
    monkeypatch.undo()
    rows = Path(path).read_text().splitlines()
    Path(path).write_text("\n".join(rows[:3]) + "\n")
    dataset = import_dataset("jsonl", path, out, photos_per_shard=4, progress=False)
    assert dataset.manifest.counts["products"] == 3
    assert dataset.digest == run_here(Table(path), tmp_path / "fresh", per_shard=4).digest


def _interrupted(*args: object) -> Dataset:
    raise KeyboardInterrupt


def test_memory_filesystem(tmp_path: Path) -> None:
    """A source and a dataset that are not on the local disk."""
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file("/shop/a.jpg", jpeg(1))
    fs.pipe_file("/shop/products.jsonl", b'{"id": "p", "title": "x", "images": ["a.jpg", "gone.jpg"]}\n')
    staging = Staging("memory://out", {})
    staging.begin()
    for chunk in plan_import(Table("memory://shop/products.jsonl"), staging, 10):
        write_shard(staging, chunk, PhotoRules())
    dataset = staging.finish("x", {})
    assert dataset.read_image(0) == jpeg(1)
    assert [row[0] for row in rejects(dataset)] == ["missing_file"]
