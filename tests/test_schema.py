"""Categories by whatever name a person gives them."""

from __future__ import annotations

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
