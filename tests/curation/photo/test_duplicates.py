"""Groups of photos that show the same picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from shoplens.curation.near_duplicates import near_photos
from shoplens.curation.photo.duplicates import BITS, DIAMETER, groups, representatives, telling
from shoplens.curation.photo.signals import photo_signals
from shoplens.synthetic import SyntheticShop, synthesize

HASHES = st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=6).flatmap(
    lambda bases: st.lists(
        st.tuples(st.sampled_from(bases), st.lists(st.integers(0, 63), max_size=5)), min_size=1, max_size=24
    )
)


def flipped(base: int, bits: list[int]) -> int:
    for bit in bits:
        base ^= 1 << bit
    return base


def distance(a: int, b: int) -> int:
    return (a ^ b).bit_count()


def linked(hashes: list[int], file: list[int], flat: list[bool]) -> list[set[int]]:
    """The groups before any is split, by repeated joining."""
    parts = [{row} for row in range(len(hashes))]

    def joins(a: int, b: int) -> bool:
        near = distance(hashes[a], hashes[b]) <= BITS and not (flat[a] or flat[b])
        return near or file[a] == file[b]

    while True:
        for one in parts:
            other = next((p for p in parts if p is not one and any(joins(a, b) for a in one for b in p)), None)
            if other is not None:
                one |= other
                parts.remove(other)
                break
        else:
            return parts


@given(HASHES, st.data())
def test_groups_are_those_of_the_definition(drawn: list[tuple[int, list[int]]], data: st.DataObject) -> None:
    hashes = [flipped(*one) for one in drawn]
    file = data.draw(st.lists(st.integers(0, 40), min_size=len(hashes), max_size=len(hashes)))
    hashes = [hashes[file.index(one)] for one in file]  # equal bytes have equal hashes
    flat = [data.draw(st.booleans()) for _ in sorted(set(file))]
    flat = [flat[sorted(set(file)).index(one)] for one in file]
    found = groups(np.array(hashes, np.uint64), np.array(file), ~np.array(flat, bool))
    assert found.tolist() == np.unique(found, return_inverse=True)[1].tolist()
    for part in linked(hashes, file, flat):
        rows = sorted(part)
        shown = [row for row in rows if not flat[row]]
        wide = max((distance(hashes[a], hashes[b]) for a in shown for b in shown), default=0) > DIAMETER
        inside = {int(found[row]) for row in rows}
        assert inside.isdisjoint(int(found[row]) for row in range(len(hashes)) if row not in part)
        if not wide:
            assert len(inside) == 1
    for number in set(found.tolist()):
        rows = [row for row in range(len(hashes)) if found[row] == number and not flat[row]]
        assert all(distance(hashes[a], hashes[b]) <= DIAMETER for a in rows for b in rows)


def test_the_largest_photo_stands_for_its_group() -> None:
    group = np.array([0, 1, 0, 1, 0])
    assert representatives(group, np.array([4, 9, 9, 9, 9]), np.array([9, 5, 7, 6, 7])).tolist() == [2, 3]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, ...]:
    """200 different photos, each in three qualities and sizes: the photo of each row, and its hash, its file, and whether the hash tells it."""
    shop = synthesize(
        tmp_path_factory.mktemp("copies") / "shop",
        SyntheticShop(products=200, seed=11, image_size=256, offers_per_catalog=1),
    )
    rows = []
    for number in range(len(shop.images)):
        photo = Image.open(io.BytesIO(shop.read_image(number))).convert("RGB")
        for quality, scale in ((95, 1.0), (50, 1.0), (85, 0.5)):
            out = io.BytesIO()
            photo.resize((round(photo.width * scale), round(photo.height * scale))).save(out, "JPEG", quality=quality)
            signals = photo_signals(out.getvalue())
            rows.append((number, signals.phash, len(rows), signals.sharpness, signals.white))
    number, phash, file, sharpness, white = map(np.array, zip(*rows, strict=True))
    return number, phash.astype(np.uint64), file, telling(sharpness, white)


def test_things_on_white_pages_are_different_pictures() -> None:
    """Their hashes are equal or near: most of what the hash sees is the page."""
    signals = []
    for side in range(20, 60, 2):
        page = Image.new("RGB", (400, 400), "white")
        page.paste((40, 90, 4 * side), (180, 180, 180 + side, 180 + side))
        out = io.BytesIO()
        page.save(out, "PNG")
        signals.append(photo_signals(out.getvalue()))
    phash = np.array([one.phash for one in signals], np.uint64)
    assert len(near_photos(phash, 4).pairs) > 10
    tells = telling(np.array([one.sharpness for one in signals]), np.array([one.white for one in signals]))
    assert len(set(groups(phash, np.arange(len(phash)), tells).tolist())) == len(phash)


def test_copies_at_other_qualities_and_sizes_are_one_picture(copies: tuple[np.ndarray, ...]) -> None:
    number, *of = copies
    found = groups(*of)
    together = found.reshape(-1, 3)
    assert (together == together[:, :1]).all(axis=1).mean() >= 0.99
    merged = sum(len(set(number[found == one].tolist())) > 1 for one in set(found.tolist()))
    assert merged <= 0.02 * len(together)  # a design in two colours has one hash
