"""Prices as people write them: `1,299.00 USD`, `₩39,000`, `1.299,00 €`, `39.000원`."""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any, Literal

Separator = Literal[".", ","]

_CODES = frozenset(
    re.findall(
        r"\w{3}",
        "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CLP "
        "CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR "
        "ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT "
        "MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD "
        "SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND "
        "VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG",
    )
)
"""ISO 4217."""
_SIGNS = {
    "₩": "KRW", "원": "KRW", "won": "KRW", "$": "USD", "us$": "USD", "$us": "USD", "c$": "CAD", "ca$": "CAD", "a$": "AUD", "au$": "AUD",
    "nz$": "NZD", "hk$": "HKD", "s$": "SGD", "nt$": "TWD", "mx$": "MXN", "r$": "BRL", "€": "EUR", "euro": "EUR",
    "£": "GBP", "£gb": "GBP", "¥": "JPY", "jp¥": "JPY", "円": "JPY", "cn¥": "CNY", "元": "CNY", "rmb": "CNY", "₹": "INR", "rs": "INR", "rs.": "INR",
    "₫": "VND", "đ": "VND", "฿": "THB", "₽": "RUB", "₺": "TRY", "tl": "TRY", "₴": "UAH", "₱": "PHP", "₪": "ILS",
    "zł": "PLN", "kč": "CZK", "ft": "HUF", "lei": "RON", "rp": "IDR", "rm": "MYR", "fr.": "CHF", "sfr.": "CHF",
}  # fmt: skip
_WITHOUT_CENTS = {"KRW", "JPY", "VND", "CLP", "ISK", "IDR", "HUF", "PYG", "XAF", "XOF"}
_THREE_DECIMALS = {"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"}
_LONGEST = 60
_PRICE = re.compile(
    r"([^\d\s.,+-]*\.?)\s*([+-]?)\s*([^\d\s.,+-]*\.?)\s*(\d[\d.,'’ ]*?)(?:[.,]?[-–—]+)?\s*([^\d\s,+-]*)"
)
_GROUPS = re.compile(r"\d{1,3}(?:[.,'’ ]\d{2,3})*(?:[.,'’ ]\d{3})")


def currency_of(text: str) -> str | None:
    """The ISO 4217 code of a code or sign: `usd` and `$` are USD, `원` and `₩` are KRW. None if it is neither."""
    folded = unicodedata.normalize("NFKC", text).strip().casefold()
    code = folded.upper()
    return code if code in _CODES else _SIGNS.get(folded)


def price_of(value: Any, decimal: Separator | None = None) -> tuple[float, str | None]:
    """(amount, currency or None) of a number or a text. Raises ValueError if it is no price.

    decimal   the separator of decimals in the table, if its other prices show it. It decides where one separator is
              followed by three digits. Without it a comma separates thousands, and so does a point beside a currency.
    """
    if isinstance(value, bool):
        raise ValueError("it is not a number")
    if not isinstance(value, str):
        return float(value), None
    text = " ".join(unicodedata.normalize("NFKC", value).split())
    try:
        if decimal is None and "_" not in text and math.isfinite(float(text)):
            return float(text), None
    except ValueError:
        pass
    found = _PRICE.fullmatch(text) if len(text) < _LONGEST else None
    if found is None:
        raise ValueError("it is not one number with a currency, such as 15.00 USD")
    before, sign, between, number, after = (part.strip() for part in found.groups())
    signs = [part for part in (before, between, after) if part]
    codes = {currency_of(part) for part in signs}
    if None in codes or len(codes) > 1:
        raise ValueError(f"{' '.join(signs)} is not a currency: write a code of ISO 4217, such as USD")
    currency = codes.pop() if codes else None
    amount = float(_number(number, decimal, currency))
    return (-amount if sign == "-" else amount), currency


def _number(number: str, decimal: Separator | None, currency: str | None) -> str:
    """The digits with a decimal point. Raises ValueError if the separators make no sense."""
    marks = [mark for mark in number if not mark.isdigit()]
    point = ""
    last = max(number.rfind("."), number.rfind(","))
    if last >= 0:
        mark, behind = number[last], len(number) - last - 1
        if number.count(mark) == 1:
            others = any(other in ".," and other != mark for other in marks)
            if others or behind != 3 or number.startswith("0") or currency in _THREE_DECIMALS:
                point = mark
            elif currency in _WITHOUT_CENTS:
                point = ""
            elif decimal is not None:
                point = mark if mark == decimal else ""
            else:
                point = mark if mark == "." and currency is None and not others else ""
    whole, _, cents = number.rpartition(point) if point else (number, "", "")
    if not whole.isdigit() and not _GROUPS.fullmatch(whole) or (cents and not cents.isdigit()):
        raise ValueError("its separators are not those of one number")
    return re.sub(r"\D", "", whole) + (f".{cents}" if cents else "")
