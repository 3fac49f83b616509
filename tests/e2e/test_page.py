"""The page in a real browser, as a merchandiser uses it."""

from __future__ import annotations

import io
import re

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.e2e.conftest import keep_picture


def shown(page: Page) -> list[str]:
    """Ids of the products in the grid."""
    return (
        page.get_by_test_id("grid").get_by_test_id("card").evaluate_all("cards => cards.map(c => c.dataset.productId)")
    )


def nearest(demo_url: str, product_id: str, exclude_catalog: bool) -> list[str]:
    """What the endpoint answers to the product page's question."""
    body = {"product_id": product_id, "k": 24, "exclude_catalog": exclude_catalog}
    return [hit["product_id"] for hit in httpx.post(f"{demo_url}/v1/similar", json=body, timeout=60).json()["data"]]


def answered(page: Page) -> None:
    expect(page.get_by_test_id("grid")).to_have_attribute("aria-busy", "false")
    expect(page.get_by_test_id("status")).to_contain_text("nearest first")


def test_the_shop_and_the_model_are_shown(page: Page, champion: int) -> None:
    expect(page.get_by_test_id("model-version")).to_have_text(f"eclip/{champion}")
    card = page.get_by_test_id("card").first
    expect(card).to_contain_text("›")
    expect(card).to_contain_text(re.compile(r"[₩\d]"))
    photo = card.locator("img")
    expect(photo).to_have_class(re.compile("loaded"))
    assert photo.evaluate("image => image.naturalWidth") > 0
    abilities = f"eclip/{champion}: embeds photos, embeds texts, extracts attributes"
    expect(page.get_by_test_id("models").locator("li").first).to_have_text(abilities)
    expect(page.get_by_test_id("caption").filter(visible=True)).to_have_count(0)
    keep_picture(page, "browse")


@pytest.mark.parametrize("words", ["빨간 원피스", "black sneakers"])
def test_a_search_in_words_shows_what_the_endpoint_answers(page: Page, demo_url: str, words: str) -> None:
    page.get_by_test_id("search-input").fill(words)
    page.get_by_test_id("search-button").click()
    answered(page)
    expected = httpx.post(f"{demo_url}/v1/similar", json={"text": words, "k": 60}, timeout=60).json()["data"]
    assert shown(page) == [product["product_id"] for product in expected]
    expect(page.get_by_test_id("card-score").first).to_contain_text(f"{expected[0]['score']:.3f}")
    keep_picture(page, f"search-{words.split()[-1]}")


def test_a_search_by_photo_finds_the_product(page: Page, demo_url: str) -> None:
    products = httpx.get(f"{demo_url}/v1/products?limit=40", timeout=30).json()["data"]
    product = next(product for product in products[17:] if product["stock"] != 0)
    photo = httpx.get(demo_url + product["image"], timeout=30).content
    page.get_by_test_id("photo-input").set_input_files({"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo})
    answered(page)
    expect(page.get_by_test_id("query-photo")).to_be_visible()
    assert product["product_id"] in shown(page)[:5]
    keep_picture(page, "search-photo")


def test_a_product_opens_with_its_neighbours_and_back_returns(page: Page, demo_url: str) -> None:
    first = shown(page)[0]
    page.get_by_test_id("card").first.click()
    detail = page.get_by_test_id("detail")
    expect(detail.locator("h1")).to_be_visible()
    neighbours = page.get_by_test_id("similar-grid").get_by_test_id("card")
    expect(neighbours.first).to_be_visible()
    ids = neighbours.evaluate_all("cards => cards.map(c => c.dataset.productId)")
    assert len(ids) == 24
    assert first not in ids
    keep_picture(page, "product")
    assert ids == nearest(demo_url, first, exclude_catalog=False)
    others = nearest(demo_url, first, exclude_catalog=True)
    detail.locator(".exclude").click()
    expect(neighbours.first).to_have_attribute("data-product-id", others[0])
    expect(page.get_by_test_id("similar-grid").locator(".tag")).to_have_count(0)
    page.go_back()
    expect(page.get_by_test_id("grid").get_by_test_id("card").first).to_be_visible()


def said(page: Page) -> dict[str, str]:
    """Key -> the value that a chip shows."""
    chips = page.get_by_test_id("attribute").filter(visible=True)
    expect(chips.first).to_be_visible()
    return chips.evaluate_all(
        "chips => Object.fromEntries(chips.map(c => [c.dataset.key, c.querySelector('.attribute-value').textContent]))"
    )


def test_a_photo_and_a_product_show_their_attributes(page: Page, demo_url: str) -> None:
    products = httpx.get(f"{demo_url}/v1/products?limit=40", timeout=30).json()["data"]

    def expected(body: dict[str, str]) -> dict[str, str]:
        data = httpx.post(f"{demo_url}/v1/attributes", json=body, timeout=60).json()["data"]
        return {entry["key"]: entry["value"] if entry["answered"] else "not sure" for entry in data}

    def of_product(row: dict[str, str]) -> dict[str, str]:
        return expected({"product_id": row["product_id"], "text": row["title"], "category": row["category_id"]})

    listed = next(row for row in products if len(told := set(of_product(row).values())) > 1 and "not sure" in told)
    photo = httpx.get(demo_url + listed["image"], timeout=30).content
    with page.expect_request("**/v1/attributes") as asked:
        page.get_by_test_id("photo-input").set_input_files(
            {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": photo}
        )
    of_photo = said(page)
    assert of_photo == expected(asked.value.post_data_json)
    assert "colour" in of_photo
    expect(page.get_by_test_id("attributes").filter(visible=True)).to_contain_text("from the photo")
    keep_picture(page, "photo-attributes")

    page.goto(f"{demo_url}/#/product/{listed['product_id']}")
    expect(page.get_by_test_id("detail").locator("h1")).to_be_visible()
    assert said(page) == of_product(listed)
    chips = page.get_by_test_id("attribute").filter(visible=True)
    unsure, sure = chips.filter(has_text="not sure"), chips.filter(has_not_text="not sure")
    expect(unsure.first).to_have_class(re.compile("unsure"))
    expect(unsure.locator(".bar")).to_have_count(0)
    expect(sure.first).to_contain_text("%")
    keep_picture(page, "product-attributes")
    page.go_back()
    page.get_by_test_id("query-photo").get_by_role("button").click()
    expect(page.get_by_test_id("attribute").filter(visible=True)).to_have_count(0)


def test_category_and_price_narrow_the_shop(page: Page, demo_url: str) -> None:
    page.get_by_test_id("category-filter").get_by_text("Shoes", exact=True).click()
    expect(page.get_by_test_id("grid").get_by_test_id("card").first).to_contain_text("Shoes")
    page.get_by_test_id("price-max").fill("60000")
    page.get_by_test_id("price-max").press("Enter")
    expect(page.get_by_test_id("status")).to_contain_text("at this price")
    expect(page.get_by_test_id("grid")).to_have_attribute("aria-busy", "false")
    listed = shown(page)
    assert listed
    for product_id in listed[:10]:
        product = httpx.get(f"{demo_url}/v1/products/{product_id}", timeout=30).json()
        assert product["category_path"][0] == "Shoes"
        assert product["price"] <= 60000


def test_a_photo_cut_short_gets_a_sentence(page: Page) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(256, size=(200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    page.get_by_test_id("photo-input").set_input_files(
        {"name": "cut.png", "mimeType": "image/png", "buffer": buffer.getvalue()[:300]}
    )
    status = page.get_by_test_id("status")
    expect(status).to_have_class(re.compile("bad"))
    expect(page.get_by_test_id("grid")).to_be_visible()
    keep_picture(page, "cut-photo")
