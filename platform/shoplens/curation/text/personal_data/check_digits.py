"""Check digits of the numbers that have one. Each takes ASCII digits of the right length.

Sources: ISO/IEC 7812-1 (Luhn), UPU S10 (parcels), GS1 General Specifications (EAN-13), python-stdnum (resident numbers),
delivery-tracker (remainder by 7). The rules of foreigners', corporate and business numbers are checked on known numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

_RESIDENT = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_CORPORATE = (1, 2) * 6
_BUSINESS = (1, 3, 7, 1, 3, 7, 1, 3, 5)
_PARCEL = (8, 6, 4, 2, 3, 5, 9, 7)
_EAN = (1, 3) * 6
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def _sum(digits: str, weights: Iterable[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def is_resident(digits: str) -> bool:
    """13 digits of a number given before October 2020. Later ones end in random digits: a miss proves nothing."""
    return (11 - _sum(digits, _RESIDENT) % 11) % 10 == int(digits[12])


def is_foreigner(digits: str) -> bool:
    """13 digits of a foreigner's registration."""
    return (13 - _sum(digits, _RESIDENT) % 11) % 10 == int(digits[12])


def is_corporate(digits: str) -> bool:
    """13 digits of a corporate registration."""
    return (10 - _sum(digits, _CORPORATE) % 10) % 10 == int(digits[12])


def is_business(digits: str) -> bool:
    """10 digits of a business registration."""
    total = _sum(digits, _BUSINESS) + int(digits[8]) * 5 // 10
    return (10 - total % 10) % 10 == int(digits[9])


def is_card(digits: str) -> bool:
    """13 to 19 digits of a payment card (Luhn)."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def is_parcel(digits: str) -> bool:
    """9 digits of an international parcel (S10)."""
    check = 11 - _sum(digits, _PARCEL) % 11
    return {10: 0, 11: 5}.get(check, check) == int(digits[8])


def is_mod_7(digits: str) -> bool:
    """Waybills whose last digit is the remainder of the others by 7. One in ten random numbers passes too."""
    return int(digits[:-1]) % 7 == int(digits[-1])


def is_bar_code(digits: str) -> bool:
    """13 digits of a Korean bar code (880) or of an ISBN (978, 979), with the check digit of an EAN-13."""
    return digits[:3] in ("880", "978", "979") and (10 - _sum(digits, _EAN) % 10) % 10 == int(digits[12])
