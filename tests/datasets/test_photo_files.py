"""Photos where a table says they are: hosts that are busy, and files whose names are spelled in two ways."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import fsspec
import pytest

from shoplens.datasets import photo_files
from shoplens.datasets.fetch import UrlRejected
from shoplens.datasets.images import ImageRejected
from shoplens.datasets.photo_files import PhotoRules, Place, is_url, locate


class Host:
    """A host that refuses `refusals` times before it answers, and the pauses between."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *refusals: UrlRejected) -> None:
        self.refusals, self.asked, self.pauses = list(refusals), 0, list[float]()
        monkeypatch.setattr(photo_files, "fetch_image", self.answer)
        monkeypatch.setattr(photo_files.time, "sleep", self.pauses.append)

    def answer(self, url: str, **options: Any) -> bytes:
        self.asked += 1
        if self.refusals:
            raise self.refusals.pop(0)
        return b"photo"


def busy(seconds: float) -> UrlRejected:
    return UrlRejected("url_busy", "busy", seconds)


def test_pauses_double_and_end_with_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, busy(0), busy(0), UrlRejected("url_timeout", "slow", 0))
    assert photo_files._fetch("https://x.kr/1.jpg", PhotoRules(attempts=4), photo_files._Patience()) == b"photo"
    assert [low <= pause <= 2 * low for low, pause in zip((0.5, 1, 2), host.pauses, strict=True)] == [True] * 3


@pytest.mark.parametrize(("asked", "waited"), [(7, 7), (3600, 20)])
def test_the_host_says_how_long_within_bounds(monkeypatch: pytest.MonkeyPatch, asked: float, waited: float) -> None:
    host = Host(monkeypatch, busy(asked))
    assert photo_files._fetch("https://x.kr/1.jpg", PhotoRules(), photo_files._Patience()) == b"photo"
    assert host.pauses == [waited]


@pytest.mark.parametrize(("refusal", "asked"), [(busy(0), 3), (UrlRejected("url_status", "gone"), 1)])
def test_attempts_are_bounded(monkeypatch: pytest.MonkeyPatch, refusal: UrlRejected, asked: int) -> None:
    host = Host(monkeypatch, *[refusal] * 9)
    with pytest.raises(UrlRejected):
        photo_files._fetch("https://x.kr/1.jpg", PhotoRules(), photo_files._Patience())
    assert host.asked == asked


def test_a_chunk_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host(monkeypatch, *[busy(3600)] * 600)
    patience = photo_files._Patience()
    for _ in range(200):
        with pytest.raises(UrlRejected):
            photo_files._fetch("https://x.kr/1.jpg", PhotoRules(), patience)
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
    photo = Place(f"memory://forms/{COMPOSED}.jpg", "memory://forms")
    assert photo_files._read(photo, PhotoRules(), photo_files._Patience()) == b"photo"


def read_at(root: Path, path: str) -> Any:
    photo = Place(str(root / path), str(root))
    return photo_files._read(photo, PhotoRules(), photo_files._Patience())
