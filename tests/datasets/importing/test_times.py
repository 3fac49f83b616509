"""Times of a log, against the standard library."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.datasets.importing.times import moment

MOMENTS = st.datetimes(datetime.datetime(1996, 1, 1), datetime.datetime(2099, 1, 1))
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))


@given(MOMENTS, ZONES)
def test_a_moment_in_every_way_of_writing_it(naive: datetime.datetime, zone: datetime.timezone) -> None:
    when = naive.replace(microsecond=naive.microsecond // 1000 * 1000, tzinfo=zone)
    utc = when.astimezone(datetime.timezone.utc).isoformat()
    milliseconds = round(when.timestamp() * 1000)
    for written in (when, when.isoformat(), when.isoformat(" "), milliseconds, str(milliseconds), milliseconds / 1000):
        assert moment(written) == utc
    seconds = when.replace(microsecond=0)
    for written in (int(seconds.timestamp()), str(int(seconds.timestamp())), seconds.strftime("%Y/%m/%d %H:%M:%S%z")):
        assert moment(written) == seconds.astimezone(datetime.timezone.utc).isoformat()


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2025-04-01T10:00", "2025-04-01T10:00:00+00:00"),
        ("2025-04-01", "2025-04-01T00:00:00+00:00"),
        ("2025. 4. 1. 19:00 +09:00", "2025-04-01T10:00:00+00:00"),
        ("2025년 4월 1일 10:00", "2025-04-01T10:00:00+00:00"),
        ("2025-04-01 10:00:00.5 UTC", "2025-04-01T10:00:00.500000+00:00"),
        ("2025-04-01T10:00:00+09", "2025-04-01T01:00:00+00:00"),
        (datetime.date(2025, 4, 1), "2025-04-01T00:00:00+00:00"),
        (1743501600 * 10**9, "2025-04-01T10:00:00+00:00"),
        (1743501600 * 10**6, "2025-04-01T10:00:00+00:00"),
    ],
)
def test_spellings(written: Any, utc: str) -> None:
    assert moment(written) == utc


@pytest.mark.parametrize(
    "written",
    [
        "yesterday",
        "",
        0,
        -1,
        20250401,
        "12:00",
        "2025-13-01",
        "2025-04-01T25:00",
        "0025-04-01",
        "2025-04-01T10:00:00 KST",
    ]
    + [float("inf"), True, "9" * 19, "1743501600,5", 4.2e9],
)
def test_nonsense_is_refused(written: Any) -> None:
    with pytest.raises(ValueError):
        moment(written)
