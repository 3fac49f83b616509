"""One-byte codes: the bound of their error against float64, and searches by them against searches without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoplens.search import codes, files, scan
from shoplens.search.codes import PAGE, CodedQueries, Codes, exact
from shoplens.search.index import Index
from shoplens.search.scan import Gallery, Range, best
from shoplens.search.storage import STORAGES, Storage, Stored, Vectors, encode
from tests.search.shops import Shop, nearest

KINDS = ("clustered", "equal", "lengths", "zeros", "denormal", "outlier", "codes")


def drawn(kind: str, n: int, dimension: int, seed: int) -> np.ndarray:
    """float32 [n, d] of a kind that codes find hard."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, dimension)) + 3 * rng.normal(size=(dimension,))
    if kind == "equal":
        vectors[:] = vectors[0]
    elif kind == "lengths":
        vectors *= 10.0 ** rng.integers(-12, 13, size=(n, 1))
    elif kind == "zeros":
        vectors[rng.random(n) < 0.5] = 0
    elif kind == "denormal":
        vectors *= 1e-42
    elif kind == "outlier":
        vectors[:, rng.integers(dimension)] *= 1e4
    elif kind == "codes":
        vectors = rng.integers(-127, 128, size=(n, dimension))
    return vectors.astype(np.float32)


@pytest.fixture(autouse=True)
def exact_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are used wherever they are exact, so that what is tested depends on no clock."""
    monkeypatch.setattr(codes, "available", exact)


hard = given(
    kind=st.sampled_from(KINDS),
    asked=st.sampled_from(KINDS),
    storage=st.sampled_from(STORAGES),
    n=st.integers(1, 3 * PAGE),
    dimension=st.sampled_from([1, 3, 16, 33, 128]),
    seed=st.integers(0, 10_000),
)


def coded(vectors: np.ndarray, storage: Storage, cut: int) -> Vectors:
    """The vectors as stored, in two parts, with codes."""
    if storage == "float16":
        vectors = np.clip(vectors, -6e4, 6e4)
    first, second = (encode(part, storage) for part in (vectors[:cut], vectors[cut:]))
    alone = Vectors(first)
    return Vectors(first, codes=Codes.of(alone)).followed_by(second)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@hard
def test_scores_from_codes_are_no_further_off_than_their_bound(
    kind: str, asked: str, storage: Storage, n: int, dimension: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = coded(drawn(kind, n + 1, dimension, seed), storage, rng.integers(1, n + 1))
    queries = drawn(asked, 4, dimension, seed + 1).astype(np.float64)
    assert isinstance(vectors.codes, Codes)
    if not vectors.codes.usable:
        return
    sides = CodedQueries(vectors.codes, queries, np.sqrt(np.vecdot(queries, queries)))
    end = vectors.parts[0].shape[0]
    for start, stop in ((0, end), (end // 2, end), (end, n + 1)):
        scores, error = sides.scores(start, stop)
        wanted = (
            queries.astype(np.longdouble)
            @ (np.asarray(vectors)[start:stop].astype(np.longdouble) - vectors.codes.center).T
        )
        step = np.abs(queries).max(axis=1) / 127
        step[step == 0] = 1
        assert (np.abs(scores * step[:, None].astype(np.longdouble) - wanted) <= (error * step)[:, None]).all()


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@hard
def test_searches_by_codes_and_without_are_the_same(
    kind: str, asked: str, storage: Storage, n: int, dimension: int, seed: int
) -> None:
    """Products of several photos, with some excluded, in two ranges; by one query and by several."""
    rng = np.random.default_rng(seed)
    vectors = coded(drawn(kind, n + 1, dimension, seed), storage, n // 2 + 1)
    queries = drawn(asked, 5, dimension, seed + 1)
    cut = vectors.parts[0].shape[0]
    start = np.unique(np.concatenate([[0, cut, n + 1], rng.integers(n + 2, size=rng.integers(2 * n + 1))]))
    products = len(start) - 1
    longest = float(np.linalg.norm(np.asarray(vectors).astype(np.float64), axis=1).max())
    middle = int(np.searchsorted(start, cut))
    excluded = rng.random(middle) < 0.3
    ranges = [Range(0, middle, excluded), Range(middle, products)]
    by_codes = Gallery(vectors, start, longest)
    without = Gallery(Vectors(*vectors.parts), start, longest)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_FEW", 1), ("_FEW_OF_MANY", 1), ("_TELLING", 1), ("_TELLING_ONE", 1)):
            patch.setattr(scan, name, value)
        patch.setattr(scan, "_SCORES_AT_ONCE", int(rng.choice([100, 1 << 19])))
        for some in (queries, queries[:1]):
            for asked_of in (ranges, ranges[:1]):
                k = int(rng.integers(1, 30))
                for found, wanted in zip(
                    best(by_codes, some, k, asked_of), best(without, some, k, asked_of), strict=True
                ):
                    np.testing.assert_array_equal(found, wanted)


def test_codes_are_used_and_rule_out_most(monkeypatch: pytest.MonkeyPatch) -> None:
    if not exact(64):
        pytest.skip("this processor has no exact products of int8")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40_000, 64)).astype(np.float32)
    queries = rng.normal(size=(9, 64)).astype(np.float32)
    ranked: list[int] = []
    ranks = scan._exact

    def counted(*arguments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ranked.append(len(arguments[2]))
        return ranks(*arguments)

    monkeypatch.setattr(scan, "_exact", counted)
    monkeypatch.setattr(scan._Search, "_scores", None)
    gallery = Gallery(Vectors(Stored(vectors), codes=Codes.of(Vectors(Stored(vectors)))), np.arange(40_001), 20.0)
    for some in (queries, queries[:1]):
        found = best(gallery, some, 10, [Range(0, 16_000)]).rows
        np.testing.assert_array_equal(found, np.argsort(-(some.astype(float) @ vectors[:16_000].T), axis=1)[:, :10])
    assert sum(ranked) < 10 * 16_000 / 8


@pytest.mark.parametrize("storage", STORAGES)
def test_an_index_of_an_earlier_version_answers_the_same(tmp_path: Path, storage: Storage) -> None:
    shop = Shop(1, 300, 500)
    index = shop.build(tmp_path / "index", storage)
    queries = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    told = (tmp_path / "index/index.json").read_text()
    lines = [line for line in told.splitlines() if not any(f'"{name}"' in line for name in files.CODES)]
    assert len(told.splitlines()) - len(lines) == (0 if storage == "int8" else len(files.CODES))
    (tmp_path / "index/index.json").write_text("\n".join(lines))
    for name in files.CODES:
        (tmp_path / "index" / name).unlink(missing_ok=True)
    earlier = Index.load(tmp_path / "index")
    assert isinstance(earlier.vectors.codes, Codes) and isinstance(index.vectors.codes, Codes)
    for one, other in zip(earlier.vectors.codes.parts[0], index.vectors.codes.parts[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert nearest(earlier, queries, 7) == nearest(index, queries, 7)


def test_vectors_too_long_for_codes_are_searched_without() -> None:
    vectors = np.full((3, 4), 1e37, np.float32)
    vectors[1] *= -1
    assert not Codes.of(Vectors(Stored(vectors))).usable
