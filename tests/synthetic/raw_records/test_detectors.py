"""What the curation finds of the flaws that are planted. The records were made without its detectors."""

from __future__ import annotations

from collections import Counter
from datetime import date

import numpy as np

from shoplens.curation.photo.duplicates import groups, telling
from shoplens.curation.photo.signals import PhotoCut, photo_signals, verdicts
from shoplens.curation.text.signals import TextRules, cut, text_signals
from shoplens.datasets.images import ImageRejected
from tests.synthetic.raw_records.conftest import Folder

TODAY = date(2026, 6, 1)


def test_texts_are_dropped_as_the_truth_says(made: Folder) -> None:
    counts: Counter[tuple[bool, bool]] = Counter()
    found: dict[str, Counter[bool]] = {}
    for row in made.texts:
        made_of = cut(text_signals(row["text"], today=TODAY), TextRules())
        counts[row["dropped"], made_of.text is None] += 1
        if row["dropped"]:
            reasons = {verdict.reason for verdict in made_of.verdicts}
            found.setdefault(row["flaw"], Counter())[row["flaw"] in reasons] += 1
    assert counts[True, True] / (counts[True, True] + counts[False, True]) >= 0.99
    assert counts[True, True] / (counts[True, True] + counts[True, False]) >= 0.95
    for flaw, of in found.items():
        assert of[True] / of.total() >= 0.9, (flaw, of)


def test_photos_are_rejected_or_cut_as_the_truth_says(made: Folder) -> None:
    wrong = []
    for row in made.table("truth_photos"):
        try:
            reasons = {v.reason for v in verdicts(photo_signals(made.files[row["image"]]), PhotoCut(animated=False))}
        except ImageRejected:
            reasons = {"rejected"}
        expected = {"truncated": "rejected", "not_an_image": "rejected"}.get(row["flaw"], row["flaw"])
        seen = expected in ("rejected", "short_side", "aspect", "white", "animated")
        if reasons != ({expected} if seen else set()):
            wrong.append((row["image"], row["flaw"], reasons))
    assert wrong == []


def test_copies_are_grouped_with_their_originals_and_no_other_clean_photos(made: Folder) -> None:
    rows = [row for row in made.table("truth_photos") if row["flaw"] in (None, "duplicate")]
    signals = [photo_signals(made.files[row["image"]]) for row in rows]
    files = np.unique([one.sha256 for one in signals], return_inverse=True)[1]
    tells = telling(np.array([one.sharpness for one in signals]), np.array([one.white for one in signals]))
    group = groups(np.array([one.phash for one in signals], np.uint64), files, tells)
    original = np.unique([row["duplicate_of"] or row["image"] for row in rows], return_inverse=True)[1]
    pairs = set(zip(group.tolist(), original.tolist(), strict=True))
    assert len(pairs) == len(np.unique(original)) == len(np.unique(group))
