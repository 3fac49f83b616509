"""If-None-Match in all its writings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_apps.http.retrieval import has_copy

OPAQUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters='"\x7f'), max_size=8)
TAGS = st.lists(st.tuples(st.sampled_from(["", "W/"]), OPAQUE), min_size=1, max_size=5)


@given(TAGS, st.tuples(st.sampled_from(["", "W/"]), OPAQUE), st.sampled_from([",", ", ", " ,\t"]), st.data())
def test_a_tag_is_found_in_a_list_weak_or_not(
    tags: list[tuple[str, str]], own: tuple[str, str], comma: str, data: st.DataObject
) -> None:
    if data.draw(st.booleans()):
        tags.insert(data.draw(st.integers(0, len(tags))), (data.draw(st.sampled_from(["", "W/"])), own[1]))
    header = comma.join(f'{weak}"{opaque}"' for weak, opaque in tags)
    assert has_copy(header, f'{own[0]}"{own[1]}"') == (own[1] in {opaque for _, opaque in tags})


def test_a_star_means_any_copy_and_an_answer_without_a_tag_has_none() -> None:
    assert has_copy(" * ", '"a"')
    assert not has_copy("*", None)
    assert not has_copy("", '"a"')
    assert not has_copy('"*"', '"a"')
    assert not has_copy("a", '"a"')
