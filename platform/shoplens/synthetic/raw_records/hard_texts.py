"""Harmless pieces that look like personal data or offence, with examples of the specification. A text with one stays."""

from __future__ import annotations

import numpy as np

from shoplens.synthetic.raw_records.personal_data import digits, one, weighted

_OFFENCE = (
    "시발점", "시발역", "병신년", "새끼손가락", "강아지 새끼 고양이", "보지 마", "자지 않는 아이", "섹시한", "젖병", "유방암 환자용",
    "고추", "조개", "다시 발표", "출시 발매", "즉시 발송", "남자지갑", "바보 지도",
)  # fmt: skip
_PLACES = (
    "강남구 맛집", "서울 성수동", "별로 1점", "진짜로 100", "운동 30분", "자동 3단", "아동 90 사이즈", "세로 120", "바로 10분",
    "서울 운동 30분", "경기도 아동 90", "제주 올레길 7", "서울로 7017", "실제로 2개", "새로 3종", "가로 90cm", "냉동 2팩", "하루로 1일",
)  # fmt: skip
_LINES = ("지하철 2호선", "9호선 급행", "272번 버스", "M5107번 버스", "분당선 3번출구", "7016 버스")
_GADGETS = ("WF-1000XM4", "SM-G998N", "갤럭시 S24", "DCP-T720DW", "아이폰 15", "RTX 4070", "코드 MX5-2210")
_NOISE = ("맥주가 시원한", "단지원금손실", "관악보라매")
"""The listed noise words inside other words."""


def hard_text(rng: np.random.Generator) -> str:
    """A harmless piece of a text."""
    match int(rng.integers(12)):
        case 0:
            day = f"20{rng.integers(10, 26)}", f"{rng.integers(1, 13):02d}", f"{rng.integers(1, 29):02d}"
            return one(rng, "{}-{}-{}", "{}.{}.{}", "{}년 {}월 {}일").format(*day)
        case 1:
            price = int(rng.integers(10, 2000)) * 100
            return one(rng, f"{price:,}원", f"{price}원", f"{price:,}~{price + 5000:,}원")
        case 2:
            return one(rng, *_GADGETS)
        case 3:
            body = one(rng, "97889", "97911", "88010", "88094") + digits(rng, 7)
            return f"{body}{-weighted(body, '131313131313') % 10}"  # ISBN or bar code
        case 4:
            a, b, c = rng.integers(5, 200, 3).tolist()
            return one(rng, f"{a}x{b}x{c}cm", f"{a}*{b}", f"{220 + a % 80}mm", "XXXL", "85A", f"{a}ml {b}개")
        case 5:  # milliseconds: the "month" is 60 to 99, so that it is no person's number
            return f"16{rng.integers(60, 100)}{digits(rng, 9)}"
        case 6:
            a, b, c = rng.integers(0, 20, 3).tolist()
            return one(rng, f"v{a}.{b}.{c}", f"버전 {a}.{b}.{c}", f"iOS {10 + a}.{b}")
        case 7:
            return one(
                rng,
                f"{rng.integers(0, 9)}-{rng.integers(0, 9)} 승리",
                f"{rng.integers(80, 130)}-{rng.integers(80, 130)} 경기",
            )
        case 8:
            return one(rng, *_LINES)
        case 9:
            return one(rng, *_PLACES)
        case 10:
            return one(rng, f"상품번호 1588{digits(rng, 4)}", f"주문 {digits(rng, 8)}", "40수 1000", *_NOISE)
        case _:
            return one(rng, *_OFFENCE)
