"""Profanity and words of sex: what is found, and above all what is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoplens.curation.text.normal_form import normal_form
from shoplens.curation.text.profanity import Match, offensive


@pytest.mark.parametrize(
    ("text", "kind", "word"),
    [
        ("시발", "profanity", "시발"),
        ("배송 시1발 늦어", "profanity", "시1발"),
        ("시*발", "profanity", "시*발"),
        ("시 발", "profanity", "시 발"),
        ("시.발놈아", "profanity", "시.발"),
        ("시 * 발", "profanity", "시 * 발"),
        ("진짜 씨발 짜증", "profanity", "씨발"),
        ("이런 씨이발", "profanity", "씨이발"),
        ("개씨발", "profanity", "개씨발"),
        ("개시발", "profanity", "개시발"),
        ("아 시1발", "profanity", "아 시1발"),
        ("개새끼", "profanity", "개새끼"),
        ("개 새 끼", "profanity", "개 새 끼"),
        ("미친놈 아니야", "profanity", "미친놈"),
        ("병신 같은 배송", "profanity", "병신"),
        ("병*신", "profanity", "병*신"),
        ("지랄하네", "profanity", "지랄"),
        ("좆같은", "profanity", "좆"),
        ("ㅅㅂ", "profanity", "ㅅㅂ"),
        ("ㅂㅅ", "profanity", "ㅂㅅ"),
        ("ㅄ 같은", "profanity", "ㅄ"),
        ("ㅈㄹ 마", "profanity", "ㅈㄹ"),
        ("ㄲㅈ", "profanity", "ㄲㅈ"),
        ("아 ㅅㅂㅋㅋㅋ", "profanity", "ㅅㅂ"),
        ("ㅅ1ㅂ", "profanity", "ㅅ1ㅂ"),
        ("ㅅㅣㅂㅏㄹ 배송", "profanity", "ㅅㅣㅂㅏㄹ"),
        ("ㅂㅕㅇㅅㅣㄴ 후기", "profanity", "ㅂㅕㅇㅅㅣㄴ"),
        ("ㅅㅔㄱㅅㅡ", "adult", "ㅅㅔㄱㅅㅡ"),
        ("시ㅂㅏㄹ", "profanity", "시ㅂㅏㄹ"),
        ("시바ㄹ", "profanity", "시바ㄹ"),
        ("ㅂㅕㅇ신", "profanity", "ㅂㅕㅇ신"),
        ("what the FUCK", "profanity", "FUCK"),
        ("f*cking good", "profanity", "f*cking"),
        ("İ shit", "profanity", "shit"),
        ("섹스", "adult", "섹스"),
        ("섹*스", "adult", "섹*스"),
        ("야동 보기", "adult", "야동"),
        ("자위기구", "adult", "자위"),
        ("성인용품 할인", "adult", "성인용품"),
        ("보지 사진", "adult", "보지"),
        ("Sex Toy", "adult", "Sex Toy"),
        ("porn무료", "adult", "porn"),
    ],
)
def test_found(text: str, kind: str, word: str) -> None:
    assert [(m.kind, text[m.start : m.end]) for m in offensive(text)] == [(kind, word)]


@pytest.mark.parametrize(
    "text",
    [
        # section 6.2
        *("다시 발표", "시발점", "시발역", "병신년", "새끼손가락", "강아지 새끼", "보지 마", "자지 않다", "섹시"),
        *("젖병", "유방암", "고추", "조개", "유방암 검진", "고추 모종", "조개 낚시", "젖병 소독기", "유두 크림"),
        # 시 and 발 of two words
        *(
            "즉시발송",
            "당일 즉시 발송",
            "다시발급",
            "임시발행",
            "14시발송",
            "판매개시발표",
            "3시 발표",
            "서울시(발주)",
            "역시 발라드",
        ),
        *(
            "아저씨 발",
            "상추씨발아율",
            "글씨 발전",
            "다시볼만한 영화",
            "출시 발매",
            "전시 발표회",
            "시/발라드",
            "낚시발판",
        ),
        *("서울시 발레단", "시바견 인형", "시발 자동차", "접시 팔아요", "씨 팔찌", "쉐보레 볼트"),
        # 병 and 신
        *("꽃병신상", "유리병 신상품", "물병 신제품", "질병신고", "간병 신청", "병신일주", "간병신청서"),
        # 새끼, the young of an animal
        *(
            "새끼 고양이",
            "새끼고양이 사료",
            "고양이 새끼들",
            "새끼줄",
            "새끼발가락",
            "물개새끼 인형",
            "새끼돼지",
            "이 새끼 강아지",
        ),
        *("개 새끼", "삼시세끼", "곰 새끼"),
        # sizes, furniture, clothes
        *(
            "남자지갑",
            "여자지갑 남자지갑",
            "남 자 지 갑",
            "액자위치",
            "의자위 방석",
            "탁자위 조명",
            "모자위 장식",
            "유니섹스 후드",
        ),
        *("등신대", "8등신 몸매", "팔등신", "노른자위", "흰 자위", "전자위원회", "바보지만", "짜지 않은 간장"),
        *("해보지 않은", "아직 보지 못한 영화", "잠을 자지 못해", "안 자지", "영화를 보지", "가보지"),
        # others
        *(
            "하고자 하는",
            "망가진 우산",
            "유모차",
            "애자 절연",
            "전염병 예방",
            "오후장",
            "광야동",
            "가야동",
            "야동동",
            "자위대",
        ),
        *(
            "몰카 탐지기",
            "완전변태 곤충",
            "곤충 변태 과정",
            "불알친구",
            "개불알꽃",
            "정액제",
            "로리타 원피스",
            "하드코어 밴드",
        ),
        *(
            "메모리 스와핑",
            "서섹스",
            "섹스 앤 더 시티",
            "섹스앤더시티 DVD",
            "포르노 그라피티 앨범",
            "껌 씹는 소리",
            "꼭꼭 씹어",
        ),
        *(
            "미친 가성비",
            "3개년 계획",
            "이미지랄까",
            "먼지랄까",
            "마스크 낀 눈자위",
            "에로사항",
            "호로파",
            "졸라매는 끈",
        ),
        *(
            "다시이발소",
            "다시부럼깨기",
            "강변태영아파트",
            "직촬 사진",
            "작은꼴뚜기",
            "정보빨리",
            "번개새키링",
            "소주병딱지",
            "샌딜도어",
        ),
        # jamo
        *(
            "ㅋㅋㅋ",
            "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊ",
            "ㄱ ㄴ ㄷ ㄹ ㅁ ㅂ ㅅ ㅇ",
            "ㅁ,ㅂ,ㅅ,ㅇ",
            "한글 ㄱㄴㄷ 자석",
            "ㅇㅈ",
            "바나나ㅋ 우유",
            "ㅎㅎ 시바",
        ),
        # Latin
        *(
            "sexy dress",
            "nude lipstick",
            "panty set",
            "nipple cream",
            "unisex",
            "Ford Escort",
            "cocktail",
            "Dick Bruna",
        ),
        *(
            "Sussex",
            "shiitake",
            "bastard file",
            "pussy willow",
            "pussy-bow blouse",
            "push it",
            "Scunthorpe",
            "class",
            "anal fin",
        ),
        *("XXL", "magna cum laude", "strap on watch", "tit bird", "orange", "bra panties", "hooker pipe"),
        "",
    ],
)
def test_harmless(text: str) -> None:
    assert offensive(text) == []


def test_matches_lie_in_order_with_their_spans() -> None:
    text = "porn 씨발 ㅅㅂ 야동"
    assert offensive(text) == [
        Match("adult", 0, 4),
        Match("profanity", 5, 7),
        Match("profanity", 8, 10),
        Match("adult", 11, 13),
    ]


@given(st.text(st.sampled_from("시발병신지랄ㅅㅂㅣㅏㄹ 1*.x(aİfuck가"), max_size=20).map(normal_form))
def test_spans_lie_inside_the_text_and_in_order(text: str) -> None:
    found = offensive(text)
    assert all(0 <= m.start < m.end <= len(text) for m in found)
    assert [m.start for m in found] == sorted(m.start for m in found)


@given(
    st.sampled_from(["시발", "병신", "지랄", "또라이", "개새끼", "섹스", "포르노"]),
    st.text(st.sampled_from("0123456789*.~!@-_;:/"), min_size=1, max_size=3),
)
def test_separators_do_not_hide_a_word(word: str, separator: str) -> None:
    assert [m[1:] for m in offensive(f"앞 {separator.join(word)} 뒤")] == [(2, 2 + len(separator.join(word)))]


@given(st.text(st.sampled_from("가나다라마바사아자차카타파하검정운동화 "), max_size=30))
def test_neutral_syllables_are_harmless(text: str) -> None:
    assert offensive(text) == []
