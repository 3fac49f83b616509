"""Raw records: reproducible, and as their tables of the truth say, by measures of this file."""

from __future__ import annotations

import inspect
import io
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from shoplens.cli import dataset
from shoplens.errors import ShoplensError
from shoplens.synthetic.raw_records import RawRecords, synthesize_raw
from shoplens.synthetic.raw_records.photo_flaws import captioned, spoil
from shoplens.synthetic.raw_records.plan import PHOTO_FLAWS, plan_of
from shoplens.synthetic.raw_records.text_flaws import TEXT_FLAWS
from shoplens.synthetic.raw_records.texts import POPULAR
from tests.synthetic.raw_records.conftest import SETTINGS, Folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_number_of_workers_changes_no_byte_and_the_seed_does(tmp_path: Path) -> None:
    small = RawRecords(records=12, photos=(1.0,), image_size=200)
    for name, settings, workers in (
        ("one", small, 1),
        ("two", small, 2),
        ("other", small.model_copy(update={"seed": 8}), 1),
    ):
        synthesize_raw(tmp_path / name, settings, workers=workers, progress=False)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert one.keys() == other.keys() and all(one[name] != other[name] for name in one)
    assert not (tmp_path / "one.partial").exists()


def test_a_folder_that_exists_is_replaced_only_on_request(tmp_path: Path) -> None:
    settings = RawRecords(records=1, photos=(1.0,), image_size=200)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ShoplensError, match="exists"):
        synthesize_raw(tmp_path / "out", settings, workers=1, progress=False)
    made = synthesize_raw(tmp_path / "out", settings, workers=1, progress=False, overwrite=True)
    assert not (tmp_path / "out" / "mine").exists()
    assert made.documents == made.photos == 1
    assert made.bytes == sum(map(len, contents(tmp_path / "out").values()))


@pytest.mark.parametrize(
    ("options", "mistake"),
    [({"photos": (0.5, 0.4)}, "add up to 1"), ({"image_size": 100}, "image_size"), ({"recods": 3}, "recods")],
)
def test_settings_that_cannot_be(options: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ValidationError, match=mistake):
        RawRecords(**options)


def test_command_line(tmp_path: Path) -> None:
    defaults = {name: parameter.default for name, parameter in inspect.signature(dataset.raw).parameters.items()}
    known = RawRecords().model_dump()
    assert {name: known[name] for name in known.keys() & defaults.keys()} == {
        name: defaults[name] for name in known.keys() & defaults.keys()
    }
    out = tmp_path / "raw"
    result = CliRunner().invoke(dataset.app, ["raw", str(out), "--records", "3", "--workers", "1"])
    assert result.exit_code == 0, result.output
    assert "3 documents" in result.output
    assert "-m workloads.curate workloads/configs/curation.yaml" in result.output and f"raw={out}" in result.output


def test_every_photo_lies_in_its_tar_and_belongs_to_a_document(made: Folder) -> None:
    photos, truth = made.table("photos"), made.table("truth_photos")
    assert [row["image"] for row in photos] == [row["image"] for row in truth] == list(made.files)
    documents = [row["document_id"] for row in made.table("documents")]
    assert len(set(documents)) == len(documents) == SETTINGS.records
    positions = defaultdict(list)
    for row in photos:
        positions[row["document_id"]].append(row["position"])
        assert row["url"].startswith("https://img.example.com/")
    assert set(positions) == set(documents)
    assert all(found == list(range(len(found))) for found in positions.values())
    assert len({row["url"] for row in photos}) == len(photos)
    assert Counter(row["flaw"] for row in truth).keys() == {None, "duplicate", *PHOTO_FLAWS}


def test_tars_end_at_a_fixed_number_of_photos() -> None:
    made = plan_of(RawRecords(records=3000))
    assert made.tars > 3
    assert [made.in_tar(tar) for tar in range(made.tars)] == [
        range(first, min(first + 1000, made.photos)) for first in range(0, made.photos, 1000)
    ]
    assert made.image(1000).startswith("photos-000001.tar/")
    assert np.array_equal(np.unique(made.document), np.arange(3000))
    counts = np.bincount(np.diff(made.first_photo))[1:] / 3000
    assert counts == pytest.approx(RawRecords().photos, abs=0.03)
    copies = np.flatnonzero(made.original >= 0)
    assert len(copies) / 3000 == pytest.approx(0.05 * 0.9, abs=0.015)
    sources = made.original[copies]
    assert (made.original[sources] < 0).all() and (made.flaw[sources] < 0).all()
    assert (made.shown[made.document[copies]] == made.shown[made.document[sources]]).all()
    other = made.titled != made.shown
    assert other.mean() == pytest.approx(0.1, abs=0.02)
    departments = made.products.department
    assert (departments[made.titled[other]] != departments[made.shown[other]]).all()


def measured(data: bytes) -> dict[str, Any]:
    """Sides, white share and fine detail of a picture, with nothing of the package."""
    with Image.open(io.BytesIO(data)) as opened:
        frames = getattr(opened, "n_frames", 1)
        opened.load()
        photo = opened.convert("RGB")
    turned = Image.open(io.BytesIO(data)).getexif().get(0x0112) == 6
    width, height = photo.size[::-1] if turned else photo.size
    grey = np.asarray(photo.convert("L"), float)
    thumbnail = np.asarray(photo.resize((64, 64), Image.Resampling.BOX))
    return {
        "frames": frames,
        "short": min(width, height),
        "aspect": max(width, height) / min(width, height),
        "white": float((thumbnail.min(axis=2) >= 250).mean()),
        "steps": float(np.percentile(np.abs(np.diff(grey, axis=1)), 99)),
    }


def test_photos_have_their_flaw_and_no_other(made: Folder) -> None:
    details, found = Counter(), defaultdict(list)
    for row in made.table("truth_photos"):
        data, flaw = made.files[row["image"]], row["flaw"]
        assert (row["product"] is None) == (flaw == "not_an_image")
        if flaw in ("truncated", "not_an_image"):
            with pytest.raises((OSError, SyntaxError, ValueError)):
                measured(data)
            continue
        of = measured(data)
        found[flaw].append(of)
        details[row["detail"]] += 1
        assert (of["frames"] > 1) == (flaw == "animated")
        assert 60 <= of["short"] < 200 if flaw == "short_side" else of["short"] >= 200
        assert 3.04 < of["aspect"] < 6.1 if flaw == "aspect" else of["aspect"] <= 3
        assert of["white"] >= 0.92 if flaw == "white" else of["white"] < 0.87
        if flaw == "text_boxes":
            assert row["boxes"] > 20 or row["boxes_area"] > 0.2
        elif flaw in (None, "duplicate"):
            assert row["boxes"] <= 2 and row["boxes_area"] <= 0.06
    assert min(details[limit] for limit in ("side_200", "aspect_3", "quality_50")) >= 1
    assert any(of["short"] == 200 for of in found[None]) and any(of["aspect"] == 3 for of in found[None])
    sharp, blurred = ([of["steps"] for of in found[flaw]] for flaw in (None, "blurred"))
    assert np.median(blurred) < 0.25 * np.median(sharp)


def test_copies_show_the_picture_of_their_original(made: Folder) -> None:
    copies = [row for row in made.table("truth_photos") if row["duplicate_of"]]
    assert len(copies) >= 10 and {row["flaw"] for row in copies} == {"duplicate"}
    for row in copies:
        a, b = (Image.open(io.BytesIO(made.files[row[name]])).convert("RGB") for name in ("image", "duplicate_of"))
        if Image.open(io.BytesIO(made.files[row["duplicate_of"]])).getexif().get(0x0112) == 6:
            b = b.transpose(Image.Transpose.ROTATE_270)
        assert made.files[row["image"]] != made.files[row["duplicate_of"]]
        small = [np.asarray(photo.resize((48, 48), Image.Resampling.BOX), float) for photo in (a, b)]
        assert np.abs(small[0] - small[1]).mean() < 4
        scale = {"quality_50": 1, "nine_tenths": 0.9, "half": 0.5}[row["detail"]]
        assert a.width == pytest.approx(scale * b.width, abs=1) and min(a.size) >= 200


@pytest.mark.parametrize("seed", range(6))
def test_watermarks_and_lines_of_text_cover_what_they_say(seed: int) -> None:
    photo = Image.fromarray(np.full((240, 220, 3), 30 + 40 * seed, np.uint8))
    rng = np.random.default_rng(seed)
    marked = spoil(photo, "watermark", rng)
    change = np.abs(np.asarray(marked.photo, int) - np.asarray(photo, int)).max(2)
    assert 0.003 < (change > 20).mean() < 0.4 and change.max() > 40
    for flaw, made in (("text", spoil(photo, "text_boxes", rng)), ("caption", captioned(photo, rng))):
        ground = np.asarray(photo.resize(made.photo.size), int)
        drawn = (np.abs(np.asarray(made.photo, int) - ground).max(2) > 30).mean()
        assert drawn <= made.boxes_area * 1.6 + 0.01 and drawn >= made.boxes_area * 0.15, flaw
        assert made.boxes > 20 or made.boxes_area > 0.2 if flaw == "text" else made.boxes <= 2


def test_clicks_are_of_documents_and_skewed(made: Folder) -> None:
    clicks, photos = made.table("clicks"), {row["image"]: row["document_id"] for row in made.table("photos")}
    assert all(row["clicks"] >= 1 for row in clicks)
    assert all(photos[row["image"]] == row["document_id"] for row in clicks if row["image"])
    assert len({(row["query"], row["document_id"]) for row in clicks}) == len(clicks)
    assert 0.5 < np.mean([row["image"] is None for row in clicks]) < 0.95
    by_query = Counter(row["query"] for row in clicks)
    assert by_query[POPULAR] == by_query.most_common(1)[0][1] >= 0.05 * SETTINGS.records
    of_star = Counter(row["image"] for row in clicks if row["image"]).most_common(2)
    assert of_star[0][1] >= SETTINGS.skew * SETTINGS.records > of_star[1][1]
    counts = sorted((row["clicks"] for row in clicks), reverse=True)
    assert counts[0] > 50 and counts[len(counts) // 2] <= 2


def test_pairs_are_those_of_photos_and_of_clicks(made: Folder) -> None:
    pairs = made.table("truth_pairs")
    of_photos = {(row["document_id"], row["image"]) for row in pairs if row["image"]}
    of_clicks = {(row["document_id"], row["query"]) for row in pairs if row["query"] is not None}
    assert of_photos == {(row["document_id"], row["image"]) for row in made.table("photos")}
    assert of_clicks == {(row["document_id"], row["query"]) for row in made.table("clicks")}
    assert len(of_photos) + len(of_clicks) == len(pairs)
    wrong_titles = np.mean([not row["match"] for row in pairs if row["image"]])
    wrong_queries = np.mean([not row["match"] for row in pairs if row["query"]])
    assert 0.1 < wrong_titles < 0.4 and 0.15 < wrong_queries < 0.5


def test_truth_of_texts_is_one_row_a_text(made: Folder) -> None:
    texts = made.texts
    titles, queries = ([row["id"] for row in texts if row["kind"] == kind] for kind in ("title", "query"))
    assert len(set(titles)) == len(titles) == SETTINGS.records
    assert len(set(queries)) == len(queries)
    assert set(queries) == {row["query"] for row in made.table("clicks")}
    assert {row["flaw"] for row in texts} == {None, *TEXT_FLAWS}
    dropped = {(row["flaw"], row["dropped"]) for row in texts}
    assert dropped == {(None, False), ("repetition", False), ("personal_data", False)} | {
        (flaw, True) for flaw in TEXT_FLAWS if flaw != "repetition"
    }


FORMS = {
    "resident_number": r"\d{6}\D?[1-4]\d{6}",
    "foreigner_number": r"\d{6}\D?[5-8]\d{6}",
    "driver_licence": r"\d\d\D\d{6}\D\d\d|\d{12}",
    "passport": r"[A-Z]\d{3}[A-Z]\d{4}|[A-Z]\d{8}",
    "phone": r"01\d.?\d{3,4}.?\d{4}|\+?82|1[568]\d\d-\d{4}|0\d{1,3}\D",
    "waybill": r"\d{10,14}|\d{4}-\d{4}-\d{4}|[A-Z]{2}\d{9}KR",
    "address": r"[구시군동로길리]\S* ?산?\d+|\d{5}",
    "email": r"@|\(at\)|\[at\]|골뱅이",
    "url": r"https?://|www\.|\.[a-z]{2}",
    "card": r"(\d{4}\D?){4}",
    "business_number": r"\d{3}\D?\d\d\D?\d{5}",
    "corporate_number": r"\d{6}\D?\d{7}",
    "account": r"(은행|농협|뱅크|금고) \d[\d-]{11,}",
    "plate": r"\d{2,3}[가-힣]\d{4}",
    "ip_address": r"(\d{1,3}\.){3}\d",
}


def test_every_kind_of_personal_data_occurs_plain_and_in_disguise(made: Folder) -> None:
    found = defaultdict(Counter)
    for row in made.texts:
        if row["flaw"] == "personal_data":
            text = re.sub("[\u200b-\u200d\u2060\ufeff\u00ad]", "", row["text"])
            disguised = text != row["text"] or any("\uff01" <= c <= "\uff5e" for c in text)
            usual = "".join(unicodedata.normalize("NFKC", c) if c not in "ㅡᅳ" else "-" for c in text)
            found[row["detail"]][bool(re.search(FORMS[row["detail"]], usual))] += 1
            found["disguise"][disguised] += 1
    assert found.keys() == {*FORMS, "disguise"}
    assert found["disguise"][True] >= 20 and found["disguise"][False] >= 20
    for kind in FORMS:  # masked numbers and numbers in words have other forms
        assert found[kind][True] >= 0.6 * found[kind].total() > 0, (kind, found[kind])
