"""Photos of an import: hosts that are busy, and files whose names are spelled in two ways."""

from __future__ import annotations

from typing import Any

import pytest

from shoplens.datasets.fetch import UrlRejected
from shoplens.datasets.importing import PhotoRules, shards
from shoplens.datasets.importing.plan import is_url, locate


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
    host = Host(monkeypatch, *[busy(3600)] * 10_000)
    patience = shards._Patience()
    for _ in range(1000):
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
