"""Shards of other people: keys with dots, files that a Mac adds, and tars with nonsense in their headers."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoplens.datasets.importing.source import PhotoRef, Reject, SourceProduct
from shoplens.datasets.importing.tars import BrokenTar, members
from shoplens.datasets.importing.webdataset import WebDataset


def tar_of(path: Path, names: Sequence[str]) -> str:
    """A tar whose files hold their own names, as JSON in .json files."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            data = f'{{"title": "{name}"}}'.encode() if name.lower().endswith(".json") else name.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def read(path: str) -> tuple[dict[str, tuple[str, list[str]]], list[Reject]]:
    """Product id -> (title, roles of its photos), and the rejects."""
    found = list(WebDataset(path))
    products = {
        item.product.id: (item.product.title, [photo.role for photo in item.photos if isinstance(photo, PhotoRef)])
        for item in found
        if isinstance(item, SourceProduct)
    }
    return products, [item for item in found if isinstance(item, Reject)]


@pytest.mark.parametrize(
    ("names", "products"),
    [
        (
            ["shoe 1.5cm.jpg", "shoe 1.5cm.txt", "shoe 1.6cm.jpg", "shoe 1.6cm.txt"],
            {"shoe 1.5cm": ["photo"], "shoe 1.6cm": ["photo"]},
        ),
        (
            ["a.1.front.jpg", "a.1.back.png", "a.1.json", "a.2.front.jpg", "a.2.json"],
            {"a.1": ["front", "back"], "a.2": ["front"]},
        ),
        (["a.jpg", "a.txt", "a.1.jpg", "a.1.txt"], {"a": ["photo"], "a.1": ["photo"]}),
        (["d/a.front.jpg", "d/a.back.jpg", "d/a.json"], {"d/a": ["front", "back"]}),
        (["a.jpg", "a.json", "a.caption.txt"], {"a": ["photo"]}),
        (["v1.2/a.jpg", "v1.2/a.txt", "v1.2/b.jpg", "v1.2/b.txt"], {"v1.2/a": ["photo"], "v1.2/b": ["photo"]}),
        (["A.JPG", "A.TXT", "B.Jpeg", "B.Json"], {"A": ["photo"], "B": ["photo"]}),
        (["a.avif", "a.txt", "b.heic", "b.txt", "c.gif", "c.txt"], {"a": ["photo"], "b": ["photo"], "c": ["photo"]}),
        (["./a.jpg", "./a.txt"], {"a": ["photo"]}),
        (["._a.jpg", "a.jpg", "._a.txt", "a.txt", ".DS_Store", "__MACOSX/a.jpg"], {"a": ["photo"]}),
    ],
)
def test_products_of_a_shard(tmp_path: Path, names: Sequence[str], products: dict[str, list[str]]) -> None:
    found, rejects = read(tar_of(tmp_path / "train-0.tar", names))
    assert {product: roles for product, (_, roles) in found.items()} == products
    assert rejects == []


_name = st.text("ab1.", min_size=1, max_size=6).filter(lambda name: not name.startswith("."))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(_name, min_size=1, max_size=8), st.randoms())
def test_two_products_never_become_one(tmp_path: Path, keys: set[str], order: random.Random) -> None:
    """Each key has one photo and one text; those with the same start are in any order."""
    names = [f"{key}.{suffix}" for key in keys for suffix in ("jpg", "txt")]
    order.shuffle(names)
    names.sort(key=lambda name: name.partition(".")[0])
    found, rejects = read(tar_of(tmp_path / "train-0.tar", names))
    assert found == {key: (f"{key}.txt", ["photo"]) for key in keys}
    assert rejects == []


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    names = ["a.1.jpg", "a.1.txt", "a.2.jpg", "a.3.jpg", ".5l.jpg", ".5l.txt", "b.jpg", "b.txt"]
    found, rejects = read(tar_of(tmp_path / "train-0.tar", names))
    assert set(found) == {"a.1", "b"}
    assert sorted((reject.reason, str(reject.image)) for reject in rejects) == [
        ("hidden_file", ".5l.jpg"),
        ("hidden_file", ".5l.txt"),
        ("no_text", "a.2.jpg"),
        ("no_text", "a.3.jpg"),
    ]


def test_shards_of_a_folder(tmp_path: Path) -> None:
    for name in ("train-0.tar", "TEST-1.TAR"):
        tar_of(tmp_path / name, [f"{name[:2]}.jpg", f"{name[:2]}.txt"])
    (tmp_path / "._train-0.tar").write_bytes(b"\0\5\26\7")
    found, rejects = read(str(tmp_path))
    assert (set(found), rejects) == ({"tr", "TE"}, [])


def header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A tar header whose size field is `size`, with a right checksum."""
    info = tarfile.TarInfo(name)
    raw = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    raw[124:136] = size.ljust(12, b"\0")
    raw[156:157] = kind
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


@pytest.mark.parametrize(
    "size",
    [
        b"\xff" + b"\xff" * 10 + b"\x00",
        b"\xff" * 12,
        b"\x80" + b"\xff" * 11,
        b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7,
        b"77777777777",
        b"not octal!!",
    ],
)
@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"g"])
def test_sizes_that_are_nonsense(tmp_path: Path, size: bytes, kind: bytes) -> None:
    path = Path(tar_of(tmp_path / "a.tar", ["a.txt"]))
    path.write_bytes(path.read_bytes()[:1024] + header("b.txt", size, kind) + b"x" * 512 + b"\0" * 1024)
    with pytest.raises(BrokenTar):
        list(members(str(path), (".txt",)))
    found, [reject] = read(str(path))
    assert reject.reason == "broken_shard"


def test_headers_in_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes((header("x", b"00000000004", b"L") + b"abc".ljust(512, b"\0")) * 3000 + b"\0" * 1024)
    with pytest.raises(BrokenTar):
        list(members(str(path)))


def test_a_text_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, size in (("a.jpg", 10), ("a.json", 17 * 2**20)):
            info = tarfile.TarInfo(name)
            info.size = size
            tar.addfile(info, io.BytesIO(b" " * size))
    found, [reject] = read(str(path))
    assert (found, reject.reason) == ({}, "malformed_row")
    assert "17,825,792 bytes" in reject.detail
