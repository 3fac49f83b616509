"""Korean addresses with a number: road names ("강남구 테헤란로 152") and lots ("역삼동 123-4"), and postal codes.

A region alone ("강남구 맛집") is no personal data. A word that ends like a road and a number are none either: "별로 1점".

Source: none that gives a grammar; the rules tell addresses of public offices from shops' texts that look alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from shoplens.curation.text.personal_data.context import is_near
from shoplens.curation.text.personal_data.found import Confidence, Found
from shoplens.curation.text.personal_data.regions import DISTRICTS, PROVINCES


def _one_of(names: Iterable[str]) -> str:
    return "|".join(sorted(names, key=len, reverse=True))


_UNITS = (
    "년|월|일|시|분|초|원|개|명|호선|코스|단|회|위|차|층|점|%|가지|사이즈|cm|kg|박|인|세|살|장|매|종|권|만|천|대|켤레|병|팩|세트|곡|배|도|"
    "번(?!지|길)|호|km|m|mm|ml|l|g|inch|인치"
)
_NOT_COUNTED = rf"(?![0-9.,]*[0-9]|-[0-9]|(?:{_UNITS})| (?:{_UNITS})(?![가-힣A-Za-z0-9]))"
"""No unit behind the number."""
_ROAD = (
    r"(?P<road>[가-힣0-9·]{1,12}?(?:로|길)(?: ?[0-9]{1,4}번[가-하]?길|[0-9]{1,4}[가-하]?길)?)"
    rf" ?(?:지하 ?)?[0-9]{{1,5}}(?:-[0-9]{{1,4}})?{_NOT_COUNTED}(?!가(?![가-힣]))"
)
_LOT = (
    r"(?P<lot>[가-힣][가-힣0-9·]{0,8}?(?:동(?:[0-9]가)?|[0-9]가|리))"
    rf" ?(?:산 ?)?[0-9]{{1,4}}(?:-[0-9]{{1,4}})?{_NOT_COUNTED}(?:번지)?"
)
_TAIL = (
    r"(?:,? ?[가-힣A-Za-z0-9]{2,12}(?:아파트|빌라|빌딩|오피스텔|타워|맨션))?"
    r"(?:,? ?[0-9A-Za-z]{1,4}동)?(?:,? ?(?:지하 ?)?[0-9]{1,3}층)?(?:,? ?[0-9]{1,5}호)?"
)
_ADDRESS = re.compile(
    rf"(?<![가-힣0-9])(?:(?P<province>{_one_of(PROVINCES)}) ?)?(?P<districts>(?:(?:{_one_of(DISTRICTS)}) ?){{0,2}})"
    rf"(?P<town>[가-힣]{{1,5}}[읍면] ?)?(?:{_ROAD}|{_LOT}){_TAIL}"
)
PLACE = re.compile(r"[로길동가리] ?(?:지하 ?|산 ?)?[0-9]|우편번호|우\)")
"""What each address has; most texts have none."""
_POSTAL_CODE = re.compile(r"(?:우편번호[^0-9]{0,5}|\(우\) ?|(?<![가-힣])우\) ?)([0-9]{5})(?![0-9-])")
_WORDS = re.compile("주소|배송지|우편번호")
_NEAR = 12
_WORDS_LIKE_PLACES = """
별로 바로 세로 가로 진짜로 실제로 제대로 그대로 반대로 마음대로 새로 서로 홀로 절대로 스스로 따로 주로 때로 도로 고속도로 경로 진로 통로
위로 아래로 뒤로 앞으로 서울로 피로 회로 난로 화로 향로 해외로
선물로 무료로 세트로 택배로 최저가로 할인가로 특가로 카드로 최대로 원하는대로 사이즈로 하루로 하나로 추가로 단체로 개별로 종류로 국내로
운동 행동 자동 아동 이동 활동 감동 진동 노동 냉동 수동 전동 작동 변동 반동 구동 연동 공동 합동 소동 충동 유아동 전자동 반자동
유산소운동 근력운동 실내운동 홈트운동
올레길 둘레길 산책길 골목길 지름길 손길 눈길 꽃길 퇴근길 출근길 여행길 등산길
정리 요리 처리 관리 수리 다리 머리 소리 우리 유리 자리 거리 오리 분리 마무리 악세사리 액세서리 배터리 갤러리
"""
_NO_PLACES = frozenset(_WORDS_LIKE_PLACES.split())


def addresses(text: str, view: str) -> Iterator[Found]:
    """Kind `address`; the detail is `road`, `lot` or `postal_code`.

    HIGH: province and district. MID: a district, or a word such as 배송지 near, or a road with 번길. LOW: a province only.
    A postal code counts behind 우편번호 or (우) only.
    """
    for match in _POSTAL_CODE.finditer(text):
        yield Found("address", *match.span(1), Confidence.MID, "postal_code")
    for match in _ADDRESS.finditer(view):
        confidence = _confidence(match, text)
        if confidence is not None:
            yield Found("address", *match.span(), confidence, "road" if match["road"] else "lot")


def _confidence(match: re.Match[str], text: str) -> Confidence | None:
    name = match["road"] or match["lot"]
    if name in _NO_PLACES or name.endswith("으로"):
        return None
    if name.endswith("리") and not match["town"]:
        return None
    if match["districts"]:
        return Confidence.HIGH if match["province"] or match["districts"].startswith("세종") else Confidence.MID
    if "번길" in name or "번가길" in name or is_near(_WORDS, text, *match.span(), _NEAR):
        return Confidence.MID
    return Confidence.LOW if match["province"] else None
