"""Times of a log, however it writes them, as ISO 8601 in UTC."""

from __future__ import annotations

import datetime
import math
import re
from typing import Any

_UTC = datetime.timezone.utc
_FIRST, _LAST = (datetime.datetime(year, 1, 1, tzinfo=_UTC) for year in (1995, 2100))
_UNITS = (1, 10**3, 10**6, 10**9)
"""Seconds, and what milli-, micro- and nanoseconds are divided by. Between 1995 and 2100 their ranges are apart."""
_NUMBER = re.compile(r"\d{9,19}(\.\d+)?")
_DATE = re.compile(r"(\d{4})[-./년]\s*(\d{1,2})[-./월]\s*(\d{1,2})[.일]?(?:[T\s]+(.*))?")
_CLOCK = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*(Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?", re.IGNORECASE
)


def moment(value: Any) -> str:
    """`1743501600`, `1743501600000`, `2025-04-01 19:00+09:00` -> `"2025-04-01T10:00:00+00:00"`.

    A time without a zone is taken as UTC. Raises ValueError if the value is no time between 1995 and 2100.
    """
    if isinstance(value, datetime.datetime):
        when = value
    elif isinstance(value, datetime.date):
        when = datetime.datetime(value.year, value.month, value.day)
    elif isinstance(value, bool):
        raise ValueError("it is not a time")
    elif isinstance(value, int | float):
        when = _since_1970(value)
    else:
        text = str(value).strip()
        when = _since_1970(float(text) if "." in text else int(text)) if _NUMBER.fullmatch(text) else _written(text)
    when = when.replace(tzinfo=_UTC) if when.tzinfo is None else when.astimezone(_UTC)
    if not _FIRST <= when < _LAST:
        raise ValueError("it does not lie between 1995 and 2100: write 2025-04-01T10:00:00Z, or seconds since 1970")
    return when.isoformat()


def _since_1970(number: float) -> datetime.datetime:
    first, last = _FIRST.timestamp(), _LAST.timestamp()
    for unit in _UNITS:
        if math.isfinite(number) and first <= number / unit < last:
            return datetime.datetime.fromtimestamp(0, _UTC) + datetime.timedelta(
                microseconds=round(number * 10**6 / unit) if unit == 1 else int(number * 10**6 // unit)
            )
    raise ValueError("it is not a number of seconds or milliseconds since 1970 that lies between 1995 and 2100")


def _written(text: str) -> datetime.datetime:
    date = _DATE.fullmatch(text)
    if date is None:
        raise ValueError("it is not a time: write ISO 8601, such as 2025-04-01T10:00:00Z, or seconds since 1970")
    year, month, day, rest = date.groups()
    when = datetime.datetime(int(year), int(month), int(day))
    if not rest:
        return when
    clock = _CLOCK.fullmatch(rest.strip())
    if clock is None:
        raise ValueError("its time of day is not hours:minutes:seconds with a zone, such as 10:00:00+09:00")
    hours, minutes, seconds, fraction, zone = clock.groups()
    when = when.replace(
        hour=int(hours),
        minute=int(minutes),
        second=int(seconds or 0),
        microsecond=int((fraction or "0").ljust(6, "0")[:6]),
    )
    if not zone:
        return when
    if zone[0] not in "+-":
        return when.replace(tzinfo=_UTC)
    away = datetime.timedelta(hours=int(zone[1:3]), minutes=int(zone[3:].lstrip(":") or 0))
    return when.replace(tzinfo=datetime.timezone(-away if zone[0] == "-" else away))
