"""Finding and hiding personal data in a text. The text must be in the form of `normal_form`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import date

from shoplens.curation.text.personal_data.accounts import accounts
from shoplens.curation.text.personal_data.addresses import PLACE, addresses
from shoplens.curation.text.personal_data.business_numbers import business_numbers
from shoplens.curation.text.personal_data.cards import cards
from shoplens.curation.text.personal_data.digit_groups import dashed
from shoplens.curation.text.personal_data.driver_licences import driver_licences
from shoplens.curation.text.personal_data.emails import emails
from shoplens.curation.text.personal_data.found import Confidence, Found
from shoplens.curation.text.personal_data.passports import passports
from shoplens.curation.text.personal_data.phones import phones, spoken_phones
from shoplens.curation.text.personal_data.plates import PLATE, plates
from shoplens.curation.text.personal_data.resident_numbers import resident_numbers
from shoplens.curation.text.personal_data.waybills import waybills
from shoplens.curation.text.personal_data.web_addresses import machine_addresses, web_addresses

_HINT = re.compile(r"[0-9@.골닷공영(\[{]")
"""A character that each kind has at least one of. Most queries and titles have none."""
_DIGIT = re.compile("[0-9]")
_NUMBER = re.compile("(?:[0-9][^0-9가-힣]{0,4}){7}")
"""The shortest number has seven digits."""
_EMAIL = re.compile(r"@|골뱅이|(?i:[(\[{]at[)\]}])")
_URL = re.compile(r"\.[A-Za-z]|://|닷컴")
_SPOKEN = re.compile("[공영]일[공영]")
_MACHINE = re.compile(r"[0-9]\.[0-9]+\.[0-9]+\.")


def personal_data(text: str, *, today: date | None = None) -> list[Found]:
    """All matches, in order and without overlaps. Of matches that overlap the more certain counts, then the longer.

    Numbers of persons born after `today` count as something else. Empty: the day of the call.
    """
    if not _HINT.search(text):
        return []
    day = today or date.today()
    found: list[Found] = []
    hidden = text
    while candidates := list(_candidates(hidden, day)):  # what is left beside a match may be a match too
        sure = [match for match in candidates if match.confidence >= Confidence.MID]
        chosen = _disjoint(sure or candidates)
        found += chosen
        hidden = masked(hidden, chosen)
    return sorted(found, key=lambda match: match.start)


def masked(text: str, found: Sequence[Found]) -> str:
    """The text with "*" for each letter and digit of the matches. As long as the text."""
    characters = list(text)
    for match in found:
        for place in range(match.start, match.end):
            if characters[place].isalnum():
                characters[place] = "*"
    return "".join(characters)


def _candidates(text: str, today: date) -> Iterator[Found]:
    """All matches of all kinds. Of two that are as certain and as long, the first counts."""
    if _DIGIT.search(text):
        if _NUMBER.search(text):
            yield from _numbers(text, dashed(text), today)
        if PLACE.search(text):
            yield from addresses(text, dashed(text))
        if PLATE.search(text):
            yield from plates(text)
        if _MACHINE.search(text):
            yield from machine_addresses(text)
    if _SPOKEN.search(text):
        yield from spoken_phones(dashed(text))
    if _EMAIL.search(text):
        yield from emails(text)
    if _URL.search(text):
        yield from web_addresses(text)


def _numbers(text: str, view: str, today: date) -> Iterator[Found]:
    yield from resident_numbers(text, view, today)
    yield from business_numbers(text, view)
    yield from driver_licences(text, view)
    yield from passports(text)
    yield from cards(text, view)
    yield from phones(text, view)
    yield from waybills(text, view)
    yield from accounts(text, view)


def _disjoint(matches: Iterable[Found]) -> list[Found]:
    chosen: list[Found] = []
    for match in sorted(matches, key=lambda match: (-match.confidence, match.start - match.end)):
        if all(match.end <= other.start or other.end <= match.start for other in chosen):
            chosen.append(match)
    return chosen
