"""Prices as people write them, against the amount that was meant."""

from __future__ import annotations

from typing import Any

import pytest
from babel.numbers import format_currency
from hypothesis import given
from hypothesis import strategies as st

from shoplens.datasets.importing.prices import currency_of, price_of


@pytest.mark.parametrize(
    ("written", "amount", "currency"),
    [
        ("15.00 USD", 15, "USD"),
        ("USD 15", 15, "USD"),
        ("US$ 15", 15, "USD"),
        ("$1,299.5", 1299.5, "USD"),
        ("₩39,000", 39000, "KRW"),
        ("￦３９，０００", 39000, "KRW"),
        ("39.000원", 39000, "KRW"),
        ("12900원", 12900, "KRW"),
        ("1.299,00 €", 1299, "EUR"),
        ("1\u00a0299,00\u00a0€", 1299, "EUR"),
        ("€ 1.299", 1299, "EUR"),
        ("1'299.00 CHF", 1299, "CHF"),
        ("R$ 10,50", 10.5, "BRL"),
        ("Rs. 1,29,900", 129900, "INR"),
        ("5.000 KWD", 5, "KWD"),
        ("39,-", 39, None),
        ("12,900", 12900, None),
        ("19,99", 19.99, None),
        ("1.299.000", 1299000, None),
        ("0,999", 0.999, None),
        ("12.345", 12.345, None),
        (" 10 ", 10, None),
        ("-5", -5, None),
        ("-$5", -5, "USD"),
        (7, 7, None),
    ],
)
def test_what_is_meant(written: Any, amount: float, currency: str | None) -> None:
    assert price_of(written) == (amount, currency)


@pytest.mark.parametrize(
    ("written", "amount"), [("1.299", 1299), ("12,900", 12.9), ("19,99", 19.99), ("1.299,00", 1299)]
)
def test_a_decimal_comma_elsewhere_in_the_table_decides(written: str, amount: float) -> None:
    assert price_of(written, ",") == (amount, None)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "free",
        "call 5",
        "10-20",
        "15 PCS",
        "1.2.3",
        "1,5,5",
        "1_000",
        "inf",
        "9.99 kr",
        "5 USD EUR",
        True,
    ],
)
def test_what_is_no_price(written: Any) -> None:
    with pytest.raises(ValueError):
        price_of(written)


@given(
    st.integers(0, 10**9),
    st.sampled_from(["KRW", "USD", "EUR", "GBP", "JPY", "BRL", "INR", "CHF"]),
    st.sampled_from(["ko_KR", "en_US", "de_DE", "fr_FR", "pt_BR", "en_IN", "de_CH", "ja_JP"]),
)
def test_prices_that_babel_writes(cents: int, currency: str, locale: str) -> None:
    """What babel formats for people of another country is read back, sign and separators included."""
    digits = 0 if currency in ("KRW", "JPY") else 2
    amount = cents // 100 if digits == 0 else cents / 100
    written = format_currency(amount, currency, locale=locale)
    assert price_of(written) == (pytest.approx(amount), "JPY" if "¥" in written or "￥" in written else currency)


def test_codes_and_signs_of_currencies() -> None:
    assert [currency_of(text) for text in ("usd", " KRW ", "원", "€", "PCS", "")] == [
        "USD",
        "KRW",
        "KRW",
        "EUR",
        None,
        None,
    ]
