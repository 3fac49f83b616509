"""Categories by whatever name a person gives them."""

from __future__ import annotations

import unicodedata

import pytest

from shoplens.errors import ShoplensError
from shoplens.schema import CategoryTree

TREE = CategoryTree.of(
    [
        (("Clothing", "Underwear", "Socks"), None),
        (("Home", "의자"), "c7"),
        (("Clothing", "Tops", "Sets"), None),
        (("Home", "Sets"), None),
    ]
)


def test_a_category_is_found_by_id_name_or_path() -> None:
    underwear = ("Clothing", "Underwear")
    assert TREE.find("Underwear").path == TREE.find("Clothing > Underwear").path == underwear
    assert TREE.find("clothing/underwear/socks").path == (*underwear, "Socks")
    assert TREE.find("의자").id == TREE.find("c7").id == "c7"


def test_what_is_not_one_category_is_told_with_near_ones() -> None:
    with pytest.raises(ShoplensError, match=r"no category 'Underwaer'; did you mean .*Underwear"):
        TREE.find("Underwaer")
    with pytest.raises(ShoplensError, match=r"several .* 'Sets', .*Clothing > Tops > Sets; Home > Sets"):
        TREE.find("Sets")
    with pytest.raises(ShoplensError, match="no category ''$"):
        TREE.find("")


def test_case_blanks_and_forms_of_unicode_decide_nothing_unless_they_must() -> None:
    socks = ("Clothing", "Underwear", "Socks")
    for named in ("clothing > underwear > socks", " Clothing>Underwear >  SOCKS ", "CLOTHING/UNDERWEAR/SOCKS", "socks"):
        assert TREE.find(named).path == socks
    assert TREE.find(unicodedata.normalize("NFD", "의자")).id == TREE.find("C7").id == "c7"
    twins = CategoryTree.of([(("Bags",), "b1"), (("bags",), "b2"), (("Shoes", "Bags"), "b1 "), (("ｂags",), "x")])
    assert [twins.find(named).id for named in ("b1", "b1 ", "B2", "Bags", "bags", "ｂags")] == [
        "b1",
        "b1 ",
        "b2",
        "b1",
        "b2",
        "x",
    ]
    with pytest.raises(ShoplensError, match="several categories are called 'BAGS'"):
        twins.find("BAGS")
    grown = CategoryTree.of([(("Bags",), None)])
    assert grown.find("BAGS").id == "bags"
    assert grown.find(grown.add(("Hats",))).id == grown.find("HATS").id == "hats"
