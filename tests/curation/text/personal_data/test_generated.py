"""Recall on invented personal data, for each kind."""

from __future__ import annotations

import pytest

from shoplens.curation.text.normal_form import normal_form
from shoplens.curation.text.personal_data.detection import personal_data
from tests.curation.text.personal_data.generated import KINDS, TODAY, Example, examples

COUNT = 600


def is_found(example: Example) -> bool:
    text, number = normal_form(example.text), normal_form(example.number)
    start = text.index(number)
    return any(
        match.kind in example.kinds
        and match.confidence >= example.confidence
        and match.start <= start
        and match.end >= start + len(number)
        for match in personal_data(text, today=TODAY)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_recall(kind: str) -> None:
    missed = [example for example in examples(kind, COUNT) if not is_found(example)]
    assert len(missed) <= COUNT // 100, missed[:20]
