"""One shop in the tables of Google Merchant, Shopify, WooCommerce and pandas."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from shoplens.datasets.importing.feeds import Columns
from shoplens.datasets.importing.html_text import text_of_html
from shoplens.datasets.importing.source import Reject, SourceProduct, Told
from shoplens.datasets.importing.table import Table
from shoplens.errors import ShoplensError
from tests.datasets.importing.shops import jpeg, rejects, run_here, write_table

PRODUCTS = 50
KINDS = ["dress", "sneaker", "backpack"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """A folder of photos, and what a shop knows of 50 products."""
    folder, draw = tmp_path_factory.mktemp("shop"), random.Random(5)
    (folder / "images").mkdir()
    products = []
    for n in range(PRODUCTS):
        photos = [f"images/{n}_{k}.jpg" for k in range(1 + n % 3)]
        for k, photo in enumerate(photos):
            (folder / photo).write_bytes(jpeg(10 * n + k, 16))
        kind = KINDS[n % 3]
        products.append(
            {
                "id": f"{kind}-{n:02d}",
                "title": f"Field's {kind} No. {n}, 27\" 원피스",
                "description": f"Light & cool; line one.\nLine two of {n}: 가벼운 옷." if n % 4 else "",
                "price": round(draw.uniform(5, 3000), 2),
                "stock": n % 7 if n % 5 else None,
                "category": ["Apparel", "Women's & Men's", kind],
                "brand": "Field" if n % 2 else "Über",
                "color": ["Red", "Navy blue", "검정", None][n % 4],
                "size": str(34 + n % 9) if n % 3 else None,
                "photos": photos,
            }
        )
    return folder, products


def google(products: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "id": p["id"],
            "title": p["title"],
            "description": p["description"],
            "link": f"https://shop.test/{p['id']}?a=1&b=2",
            "image_link": p["photos"][0],
            "additional_image_link": p["photos"][1:],
            "availability": "in_stock",
            "sell_on_google_quantity": p["stock"],
            "price": f"{p['price']:,.2f} USD",
            "product_type": " > ".join(p["category"]),
            "brand": p["brand"],
            "condition": "new",
            "color": p["color"],
            "size": p["size"],
        }
        for p in products
    ]


def google_tsv(path: Path, products: list[dict[str, Any]]) -> None:
    rows = google(products)
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows({**row, "additional_image_link": ",".join(row["additional_image_link"])} for row in rows)


def google_xml(path: Path, products: list[dict[str, Any]]) -> None:
    space = "http://base.google.com/ns/1.0"
    ElementTree.register_namespace("g", space)
    rss = ElementTree.Element("rss", version="2.0")
    channel = ElementTree.SubElement(rss, "channel")
    ElementTree.SubElement(channel, "title").text = "The shop"
    for row in google(products):
        item = ElementTree.SubElement(channel, "item")
        shipping = ElementTree.SubElement(item, f"{{{space}}}shipping")
        ElementTree.SubElement(shipping, f"{{{space}}}country").text = "KR"
        ElementTree.SubElement(shipping, f"{{{space}}}price").text = "5 USD"
        for tag, value in row.items():
            name = tag if tag in ("title", "description", "link") else f"{{{space}}}{tag}"
            for text in value if isinstance(value, list) else [value]:
                if text is not None:
                    ElementTree.SubElement(item, name).text = str(text)
    ElementTree.indent(rss)
    ElementTree.ElementTree(rss).write(path, encoding="utf-8", xml_declaration=True)


def shopify(path: Path, products: list[dict[str, Any]]) -> None:
    rows = []
    for p in products:
        first = {
            "Handle": p["id"],
            "Title": p["title"],
            "Body (HTML)": "".join(
                f"<p>{line.replace('&', '&amp;')}</p>\n" for line in p["description"].split("\n") if line
            ),
            "Vendor": p["brand"],
            "Product Category": " > ".join(p["category"]),
            "Type": p["category"][-1],
            "Published": "true",
            "Option1 Name": "Color" if p["color"] else "Title",
            "Option1 Value": p["color"] or "Default Title",
            "Option2 Name": "Size" if p["size"] else "",
            "Option2 Value": p["size"],
            "Variant SKU": "",
            "Variant Inventory Qty": p["stock"],
            "Variant Price": f"{p['price']:.2f}",
            "Variant Requires Shipping": "true",
            "Gift Card": "false",
        }
        for position, photo in enumerate(p["photos"], 1):
            rows.append({**first, "Image Src": photo, "Image Position": position})
            first = {"Handle": p["id"]}
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def frame(products: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(products).rename(columns={"photos": "images", "category": "category_path"})
    return table.assign(currency="USD", sku=float("nan"))


WRITERS = {
    "google.tsv": google_tsv,
    "google.xml": google_xml,
    "products_export.csv": shopify,
    "pandas.csv": lambda path, products: frame(products).to_csv(path),
    "pandas.parquet": lambda path, products: frame(products).to_parquet(path),
    "pandas.jsonl": lambda path, products: frame(products).to_json(path, orient="records", lines=True),
    "pandas.json": lambda path, products: frame(products).to_json(path, orient="records", indent=1),
}


def test_one_shop_is_one_dataset_in_every_table(shop: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    folder, products = shop
    digests = {}
    for name, write in WRITERS.items():
        write(folder / name, products)
        dataset = run_here(Table(str(folder / name), kind="csv", currency="USD"), tmp_path / name)
        assert rejects(dataset) == [], name
        digests[name] = dataset.digest
    assert len(set(digests.values())) == 1, digests
    assert dataset.manifest.counts["images"] == sum(len(p["photos"]) for p in products)
    assert set(dataset.manifest.photos_by_split) == {"train", "val", "test"}
    for row, p in zip(dataset.products.to_pylist(), products, strict=True):
        attributes = {key: [p[key]] for key in ("brand", "color", "size") if p[key]}
        assert (row["product_id"], row["title"], row["description"]) == (p["id"], p["title"], p["description"])
        assert (row["price"], row["currency"], row["stock"]) == (p["price"], "USD", p["stock"])
        assert (row["category_path"], dict(row["attributes"]), row["texts"]) == (p["category"], attributes, [])


def told(path: Path) -> str:
    *_, last = Table(str(path))
    assert isinstance(last, Told)
    return last.sentence


def test_what_columns_were_taken_as_is_told(shop: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, products = shop
    google_tsv(folder / "google.tsv", products[:1])
    assert told(folder / "google.tsv") == (
        "columns of a Google Merchant table: id, title, description, price, availability, attribute brand, "
        "attribute color, attribute size as named; category_path from product_type; stock from sell_on_google_quantity; "
        "image from image_link; images from additional_image_link; not used: link, condition"
    )
    frame(products[:1]).to_csv(folder / "pandas.csv")
    assert told(folder / "pandas.csv").endswith("kept under their names: sku; not used: Unnamed: 0")


def products_of(path: Path, **options: Any) -> tuple[list[SourceProduct], list[Reject]]:
    items = list(Table(str(path), **options))
    return [item for item in items if isinstance(item, SourceProduct)], [i for i in items if isinstance(i, Reject)]


def test_variants_of_shopify_are_one_product(tmp_path: Path) -> None:
    (tmp_path / "export.csv").write_text(
        "Title,URL handle,Description,Vendor,Type,Option1 name,Option1 value,Price,Inventory quantity,Product image URL,"
        "Variant image URL,Color (product.metafields.shopify.color-pattern),Tags\n"
        'Shirt,shirt,<p>Cool</p>,Field,Shirts,Size,S,39.00,4,https://x.kr/0.jpg,,Red,"new, linen"\n'
        "Hat,hat,,,Hats,Title,Default Title,9.00,,https://x.kr/h.jpg,,,\n"
        ",shirt,,,,,M,41.00,-1,https://x.kr/1.jpg,https://x.kr/0.jpg,,\n"
    )
    (shirt, hat), notes = products_of(tmp_path / "export.csv")
    assert [photo.path for photo in shirt.photos if not isinstance(photo, Reject)] == [
        "https://x.kr/0.jpg",
        "https://x.kr/1.jpg",
    ]
    product = shirt.product
    assert (product.price, product.stock, product.description, product.category_path) == (39, 4, "Cool", ("Shirts",))
    assert product.attributes == {"brand": ("Field",), "size": ("S", "M"), "color": ("Red",), "tags": ("new", "linen")}
    assert (hat.product.id, hat.product.attributes, hat.product.stock) == ("hat", {}, None)
    assert [(note.reason, note.where, note.product_id) for note in notes] == [("field", "export.csv:4", "shirt")]


def test_variations_of_woocommerce_are_one_product(tmp_path: Path) -> None:
    (tmp_path / "wc.csv").write_text(
        "ID,Type,SKU,Name,Published,In stock?,Stock,Regular price,Categories,Images,Parent,Attribute 1 name,Attribute 1 value(s)\n"
        '12,variation,H-R,Hoodie - Red,1,1,3,"45,00",,https://x.kr/r.jpg,id:10,Color,Red\n'
        '10,variable,H,Hoodie,1,1,,,"Clothing, Clothing > Tops > Hoodies","https://x.kr/0.jpg, https://x.kr/1.jpg",,Color,"Red, Blue"\n'
        '13,variation,H-B,Hoodie - Blue,1,1,2,"47,00",,https://x.kr/b.jpg,H,Color,Blue\n'
        '20,simple,C,Cap,1,0,,"16,00",Hats,https://x.kr/c.jpg,,,\n'
    )
    (hoodie, cap), notes = products_of(tmp_path / "wc.csv", currency="EUR")
    product = hoodie.product
    assert (product.id, product.title, product.price, product.currency, product.stock) == ("10", "Hoodie", 45, "EUR", 5)
    assert product.category_path == ("Clothing", "Tops", "Hoodies")
    assert product.attributes == {"color": ("Red", "Blue")}
    assert len(hoodie.photos) == 4
    assert (cap.product.id, cap.product.stock, cap.product.price, notes) == ("20", 0, 16, [])


def test_a_table_of_ones_own_with_a_column_of_google(tmp_path: Path) -> None:
    row = {
        "id": 1,
        "title": "t",
        "image_link": "a.jpg",
        "category_path": ["A", "B"],
        "season": "Fall",
        "brand": "Field",
    }
    [found], notes = products_of(
        Path(write_table(tmp_path, [{**row, "attributes": {"fit": "slim"}, "product_type": []}]))
    )
    assert found.product.category_path == ("A", "B")
    assert (found.product.texts, notes) == ({"season": "Fall"}, [])
    assert found.product.attributes == {"fit": ("slim",), "brand": ("Field",)}
    [found], _ = products_of(Path(write_table(tmp_path, [{**row, "attributes": "none such"}])))
    assert len(found.notes) == 1 and found.product.attributes == {} and found.product.texts["brand"] == "Field"


def test_other_names_of_columns(tmp_path: Path) -> None:
    table = write_table(
        tmp_path,
        [
            {
                "상품번호": 1,
                "상품명": "셔츠",
                "대표이미지": "a.jpg",
                "추가이미지": "b.jpg|c.jpg",
                "판매가": "39,000원",
                "재고": 3,
            },
            {"상품번호": 2, "상품명": "모자", "image_2": "d.jpg", "late": "kept"},
        ],
    )
    (shirt, hat), notes = products_of(Path(table))
    assert (shirt.product.id, shirt.product.title, shirt.product.price, shirt.product.stock) == ("1", "셔츠", 39000, 3)
    assert [photo.path for photo in shirt.photos if not isinstance(photo, Reject)] == ["a.jpg", "b.jpg", "c.jpg"]
    assert hat.product.texts == {"late": "kept"} and len(hat.photos) == 1 and not notes


def test_a_table_that_lacks_a_column_is_refused_with_the_columns_it_has(tmp_path: Path) -> None:
    (tmp_path / "feed.csv").write_text("nummer,title,price\n1,a,2\n")
    with pytest.raises(ShoplensError, match="no column for id and images: it has nummer, title, price"):
        list(Table(str(tmp_path / "feed.csv")))
    with pytest.raises(ShoplensError, match="'coins' is not a currency"):
        Table(str(tmp_path / "feed.csv"), currency="coins")


def test_numbered_columns_of_photos() -> None:
    assert Columns.of(["id", "title", "image", "image.1", "Image 2"]).of_field["images"] == ("image.1", "Image 2")


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("size < 5 & more\n\nnext", "size < 5 & more\n\nnext"),
        ("<p>Light &amp; <b>cool</b></p><ul><li>a</li><li>b</li></ul>", "Light & cool\na\nb"),
        ("<style>p {}</style>a<br/>b<script>x</script>", "a\nb"),
        ("M&amp;M", "M&M"),
    ],
)
def test_html(html: str, text: str) -> None:
    assert text_of_html(html) == text
