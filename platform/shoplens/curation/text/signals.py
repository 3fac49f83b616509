"""All signals of a text, measured once, and the cut by them. A cut may change without measuring again."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import date
from typing import Literal, NamedTuple

from pydantic import Field

from shoplens.config import Config
from shoplens.curation.text import noise_words
from shoplens.curation.text.characters import ScriptShare, Shares, made_of
from shoplens.curation.text.language import LEAST_LETTERS, Language, language
from shoplens.curation.text.normal_form import normal_form
from shoplens.curation.text.personal_data.detection import masked, personal_data
from shoplens.curation.text.personal_data.found import Confidence, Found
from shoplens.curation.text.profanity import Match, offensive
from shoplens.curation.text.repetition import contracted
from shoplens.curation.verdict import Verdict

_NOISE = noise_words.pattern()


class TextSignals(NamedTuple):
    """What was measured of a text. Spans lie in `text`, which is in normal form.

    It is contracted too, unless it has personal data: "900101-1******" would become "900101-1*".

    language   None where it was not measured; see `language`
    """

    text: str
    personal: tuple[Found, ...]
    offensive: tuple[Match, ...]
    shares: Shares
    scripts: tuple[ScriptShare, ...]
    language: Language | None


class TextRules(Config):
    """What keeps a title or a query."""

    personal_data: Literal["drop", "mask", "tag"] = Field(
        "drop", description="What becomes of a text with personal data: dropped, its data masked, or only recorded."
    )
    confidence: Literal["low", "mid", "high"] = Field(
        "mid", description="Least confidence of personal data that counts."
    )
    personal_kinds: tuple[str, ...] | None = Field(
        None, description="Kinds of personal data that count, such as phone or url. null: all."
    )
    offensive: Literal["drop", "tag"] = Field(
        "drop", description="What becomes of a text with profanity or adult words."
    )
    share: float = Field(
        0.5, gt=0, le=1, description="Share of jamo, of Latin letters or of signs from which on a text is dropped."
    )
    share_of: Literal["each", "sum"] = Field("each", description="The share of each, or of the three together.")
    latin: Literal["every_letter", "lone_letters"] = Field(
        "every_letter", description="Letters that count as Latin: all, or only those without another next to them."
    )
    han: float = Field(0.0, ge=0, le=1, description="Largest share of Han characters. Other scripts are not kept.")
    noise: Literal["drop", "keep"] = Field("drop", description="What becomes of a text with a noise word.")
    languages: tuple[str, ...] | None = Field(
        ("ko", "en"),
        description="Languages that are kept, by ISO 639-1, of texts that are mostly Latin letters, 20 or more. null: all.",
    )
    language_confidence: float = Field(
        0.8, gt=0, le=1, description="Confidence from which on a text in another language is dropped."
    )


class Cut(NamedTuple):
    """The text that is kept, None if none is, and every reason against it."""

    text: str | None
    verdicts: tuple[Verdict, ...]


def text_signals(raw: str, brands: Collection[str] = (), *, today: date | None = None) -> TextSignals:
    """Measures a text.

    brands   words in small letters that count neither as Latin nor for the language; a set
    today    numbers of persons born later count as something else; None: the day of the call
    """
    normal = normal_form(raw)
    text = contracted(normal)
    personal = personal_data(normal, today=today)
    if personal:
        text = normal
    elif text != normal:
        personal = personal_data(text, today=today)
    shares, scripts = made_of(text, brands)
    letters = shares.latin * len(text)  # or fewer: the share is of what is not blank
    return TextSignals(
        text,
        tuple(personal),
        tuple(offensive(text)),
        shares,
        scripts,
        language(text, brands) if letters > LEAST_LETTERS - 0.5 else None,
    )


def cut(signals: TextSignals, rules: TextRules, noise: re.Pattern[str] = _NOISE) -> Cut:
    """Applies the rules. With `personal_data: mask` the text that is kept has its data masked.

    noise   finds noise words; see `noise_words.pattern`
    """
    verdicts = _verdicts(signals, rules, noise)
    if verdicts or not signals.text:
        return Cut(None, tuple(verdicts) or (Verdict("empty", 0, 1),))
    text = masked(signals.text, _counting(signals, rules)) if rules.personal_data == "mask" else signals.text
    return Cut(text, ())


def _counting(signals: TextSignals, rules: TextRules) -> list[Found]:
    least = Confidence[rules.confidence.upper()]
    kinds = rules.personal_kinds
    return [one for one in signals.personal if one.confidence >= least and (kinds is None or one.kind in kinds)]


def _verdicts(signals: TextSignals, rules: TextRules, noise: re.Pattern[str]) -> list[Verdict]:
    _, personal, offensive, (jamo, latin, _, sign), scripts, language = signals
    suspect = personal or offensive or scripts or language or jamo + latin + sign >= rules.share
    found = list(_against(signals, rules)) if suspect else []
    if rules.noise == "drop" and (word := noise.search(signals.text)):
        found.append(Verdict("noise", 1, 1, word.group()))
    return found


def _against(signals: TextSignals, rules: TextRules) -> Iterator[Verdict]:
    if signals.personal and rules.personal_data == "drop":
        for found in _counting(signals, rules):
            yield Verdict("personal_data", found.confidence, Confidence[rules.confidence.upper()], found.kind)
    if signals.offensive and rules.offensive == "drop":
        for match in signals.offensive:
            yield Verdict("offensive", 1, 1, match.kind)
    jamo, latin, lone_latin, sign = signals.shares
    if rules.latin == "lone_letters":
        latin = lone_latin
    if jamo + latin + sign >= rules.share:
        each = {"jamo": jamo, "latin": latin, "sign": sign}
        for name, share in (each if rules.share_of == "each" else {"sum": jamo + latin + sign}).items():
            if share >= rules.share:
                yield Verdict("characters", share, rules.share, name)
    for script, share in signals.scripts:
        most = rules.han if script == "Han" else 0.0
        if share > most:
            yield Verdict("script", share, most, script)
    if signals.language and rules.languages is not None:
        code, confidence = signals.language
        if code not in rules.languages and confidence >= rules.language_confidence:
            yield Verdict("language", confidence, rules.language_confidence, code)
