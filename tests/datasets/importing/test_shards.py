"""Photos of an import: hosts that are busy, and files whose names are spelled in two ways."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path
from typing import Any

import fsspec
import pytest
from PIL import Image

from shoplens.datasets.fetch import UrlRejected
from shoplens.datasets.images import ImageRejected
from shoplens.datasets.importing import PhotoRules, shards
from shoplens.datasets.importing.plan import is_url, locate, plan_import
from shoplens.datasets.importing.table import Table
from shoplens.datasets.staging import Staging


class Host:
    """A host that refuses `refusals` times before it answers, and the pauses between."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *refusals: UrlRejected) -> None:
        self.refusals, self.asked, self.pauses = list(refusals), 0, list[float]()
        monkeypatch.setattr(shards, "fetch_image", self.answer)
        monkeypatch.setattr(shards.time, "sleep", self.pauses.append)

    def answer(self, url: str, **options: Any) -> bytes:
        self.asked += 1
        if self.refusals:
            raise self.refusals.pop(0)
        return b"photo"


def busy(seconds: float) -> UrlRejected:
    return UrlRejected("url_busy", "busy", seconds)


def test_pauses_double_and_end_with_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, busy(0), busy(0), UrlRejected("url_timeout", "slow", 0))
    assert shards._fetch("https://x.kr/1.jpg", PhotoRules(attempts=4), shards._Patience()) == b"photo"
    assert [low <= pause <= 2 * low for low, pause in zip((0.5, 1, 2), host.pauses, strict=True)] == [True] * 3


@pytest.mark.parametrize(("asked", "waited"), [(7, 7), (3600, 20)])
def test_the_host_says_how_long_within_bounds(monkeypatch: pytest.MonkeyPatch, asked: float, waited: float) -> None:
    host = Host(monkeypatch, busy(asked))
    assert shards._fetch("https://x.kr/1.jpg", PhotoRules(), shards._Patience()) == b"photo"
    assert host.pauses == [waited]


@pytest.mark.parametrize(("refusal", "asked"), [(busy(0), 3), (UrlRejected("url_status", "gone"), 1)])
def test_attempts_are_bounded(monkeypatch: pytest.MonkeyPatch, refusal: UrlRejected, asked: int) -> None:
    host = Host(monkeypatch, *[refusal] * 9)
    with pytest.raises(UrlRejected):
        shards._fetch("https://x.kr/1.jpg", PhotoRules(), shards._Patience())
    assert host.asked == asked


def test_a_chunk_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, *[busy(3600)] * 600)
    patience = shards._Patience()
    for _ in range(200):
        with pytest.raises(UrlRejected):
            shards._fetch("https://x.kr/1.jpg", PhotoRules(), patience)
    assert sum(host.pauses) <= 16 * 300
    assert host.refusals  # the last photos were asked for once each


@pytest.mark.parametrize("path", ["https://x.kr/1.jpg", "HTTP://x.kr/1", "//cdn.x.kr/1.jpg?v=2", "//cdn.x.kr:8080/a"])
def test_urls(path: str) -> None:
    assert is_url(path)
    assert locate("/data/shop", path) == path


@pytest.mark.parametrize(
    "path", ["/data/1.jpg", "1.jpg", "//share/1.jpg", "http.jpg", "ftp://x.kr/1.jpg", "//", "///a.b/c"]
)
def test_paths_are_not_urls(path: str) -> None:
    assert not is_url(path)


COMPOSED, DECOMPOSED = "검정 운동화 é", unicodedata.normalize("NFD", "검정 운동화 é")


@pytest.mark.parametrize("stored", [(COMPOSED, COMPOSED), (DECOMPOSED, DECOMPOSED), (COMPOSED, DECOMPOSED)])
@pytest.mark.parametrize("asked", [(COMPOSED, COMPOSED), (DECOMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_both_unicode_forms_name_one_file(tmp_path: Path, stored: tuple[str, str], asked: tuple[str, str]) -> None:
    (tmp_path / stored[0]).mkdir()
    (tmp_path / stored[0] / f"{stored[1]}.jpg").write_bytes(b"photo")
    assert read_at(tmp_path, f"{asked[0]}/{asked[1]}.jpg") == b"photo"


def test_the_exact_name_comes_first(tmp_path: Path) -> None:
    for name in (COMPOSED, DECOMPOSED):
        (tmp_path / name).write_bytes(name.encode())
    assert [read_at(tmp_path, name) for name in (COMPOSED, DECOMPOSED)] == [COMPOSED.encode(), DECOMPOSED.encode()]


def test_another_spelling_leads_out_of_no_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/1.jpg").write_bytes(b"secret")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / DECOMPOSED).symlink_to(tmp_path / "secret")
    refused = read_at(tmp_path / "shop", f"{COMPOSED}/1.jpg")
    assert isinstance(refused, ImageRejected) and refused.reason == "outside_source"
    missing = read_at(tmp_path / "shop", "gone/1.jpg")
    assert isinstance(missing, ImageRejected) and missing.reason == "missing_file"


def test_both_forms_in_a_remote_place() -> None:
    fsspec.filesystem("memory").pipe_file(f"/forms/{DECOMPOSED}.jpg", b"photo")
    photo = {"uri": f"memory://forms/{COMPOSED}.jpg", "root": "memory://forms", "offset": None, "length": None}
    assert shards._read(photo, PhotoRules(), shards._Patience()) == b"photo"


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
            shards.write_shard(staging, chunk, PhotoRules(), decoders)
        dataset = staging.finish("shop", {})
        digests.add(dataset.digest)
        assert dataset.table("rejects")["reason"].to_pylist() == ["duplicate_photo", "unreadable"]
    assert len(digests) == 1


def read_at(root: Path, path: str) -> Any:
    photo = {"uri": str(root / path), "root": str(root), "offset": None, "length": None}
    return shards._read(photo, PhotoRules(), shards._Patience())
