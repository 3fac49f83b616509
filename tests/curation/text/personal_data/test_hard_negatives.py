"""Texts of shops that look like personal data and are none: no match from MID on."""

from __future__ import annotations

from datetime import date

import pytest

from shoplens.curation.text.normal_form import normal_form
from shoplens.curation.text.personal_data.detection import personal_data
from shoplens.curation.text.personal_data.found import Confidence

TODAY = date(2026, 6, 1)
DATES = """2024-01-02
2024.01.02 출시
20240102
2024년 1월 2일 12시 30분
2024-01-02 12:30:45
20240102123045
택배 20240102123045 도착
24.01.02~24.02.28
2023~2024 시즌
1950-2000년 클래식 음악""".splitlines()
PRICES = """29,900원
1,234,567원
10000-20000원
1600-1700 조선의 역사
1800-1900원
5000원~10000원 선물
무료택배 1000원 2000원 3000원
100,000,000원
3만 5천원""".splitlines()
SIZES = """120x60x75cm
90 95 100 105 110
220-225-230-235-240-245
S(90) M(95) L(100)
245mm 250mm 255mm
1920x1080 144Hz
1600x1200
500ml 12개입
120*60*75
10.5 x 21.0 x 29.7
205/55R16
40수 1000매
30수3000 면
60수 1000 스레드""".splitlines()
MODELS = """SM-S918N 256GB
WH-1000XM5
KR-S12345678
A123B4567
M12A4567
아이폰 15 Pro 128GB 블랙
RTX 4090 24GB
i7-13700K
LG 27GP850-B
A1B2C3D4E5F6
MK-0210-1234
OLED55C3KNA
R410A 냉매
라이젠 7 7800X3D
M2 나사 100개
G304 마우스
S24 울트라 케이스
ABC0212345678
품번 12345678
DF-2024-0012-345
NO.123456
1234567890
5자리 12345""".splitlines()
BOOKS = """9788936434267
978-89-364-3426-7
ISBN 9791190000017
979-11-90000-01-7
8801234567893
택배박스 8801234567893
4901234567894
50992060209415
5e12c01191235958ecdd6285
wshC1612242400387A21""".splitlines()
TIMES = """1700000000000
1699999999999
1735689600000
1262304000000
1800000000000
1716239022
1716239022123""".splitlines()
VERSIONS = """1.2.3.4
v2.10.1234
10.15.7
iOS 17.4.1
python 3.11.7
1.0.0-beta.2
0.0.0.0
윈도우 10.0.19045.4170""".splitlines()
LINES_AND_SCORES = """2호선 강남역 3번 출구
지하철 9호선
3:2 승리
21-19, 21-15
평점 4.9/5.0
1위 2위 3위
110-105 승
강남역 11번 출구 맛집
KTX 101
100-98-96""".splitlines()
PLACES = """별로 1점
진짜로 100
운동 30분
자동 3단
아동 90 사이즈
세로 120
바로 10분
서울 운동 30분
경기도 아동 90
제주 올레길 7
서울로 7017
강남구 맛집
강남구 맛집 10선
제주시 올레길 7코스
제주 올레길 7코스
강남구 우동 1인분
강남구 별로 1점
부산 서구 냉동 3kg
친구 바로 10분
가구 세로 120
축구 운동 30
강남구 선물로 100
서울 강남구 사은품으로 1
가로 60 세로 120
전동 3단 기어
홀로 1박 2일
역삼로 3번 출구
올레길 7코스
냉동 만두 10개
유아동 110
제대로 3분
실제로 5kg
반대로 2회
마음대로 7가지
서로 2개
새로 1병
이동 10km
종로 2가
명동 3
신림동 맛집 2
활동 8부
수동 5단
노동 8시간
둘레길 21코스
산책길 3km
그대로 2장""".splitlines()
WORDS = """골뱅이 무침 400g
동원 골뱅이 230g 3캔
1+1 @ 9,900원
@2.5mm
Node.js 교과서
ASP.NET 교과서
iPhone 1600 1200
Dr.Jart 크림
No.1 베스트셀러
M.A.C 립스틱
e.l.f. 화장품
3.5mm 이어폰
St.Ives 스크럽
점점 닷컴 시대
A.P.C. 가방
카드지갑 10포켓
신한 우리 하나
공일오비 1집
영일만 친구
여권 케이스 RFID
운전면허 문제집 2024 1000제
택배 박스 100장
등기 봉투 50매
법인 차량용품
통장 지갑 5칸
우리 아이 100일
기업 선물세트 12구
주소 스티커 100매
우편번호 5자리
IP67 방수
전화 케이스 128""".splitlines()
NEGATIVES = [
    *DATES, *PRICES, *SIZES, *MODELS, *BOOKS, *TIMES, *VERSIONS, *LINES_AND_SCORES, *PLACES, *WORDS,
]  # fmt: skip


@pytest.mark.parametrize("text", NEGATIVES)
def test_no_match_that_would_drop_the_text(text: str) -> None:
    found = personal_data(normal_form(text), today=TODAY)
    assert [match for match in found if match.confidence >= Confidence.MID] == []


def test_times_in_milliseconds_are_rarely_taken_for_a_person() -> None:
    """One in 20 is a date with a digit for the century; the check digit and the age leave one in 500 at most."""
    times = range(1_262_304_000_000, 1_900_000_000_000, 63_769_607)
    hits = sum(
        any(match.confidence >= Confidence.MID for match in personal_data(str(time), today=TODAY)) for time in times
    )
    assert len(times) > 9_000
    assert hits / len(times) < 1 / 500
