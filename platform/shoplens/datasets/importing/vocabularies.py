"""Column names of the tables that shops have: Google Merchant feeds, exports of Shopify and WooCommerce, and others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Vocabulary:
    """The columns of one kind of table, as `folded` names.

    needs        a table of this kind has one column of each of these groups
    signs        and one of these
    fields       our field -> their columns, the preferred one first
    attributes   attribute -> their columns
    ignored      a pattern of columns that are left out; the others become texts and attributes
    """

    title: str
    needs: tuple[tuple[str, ...], ...] = ()
    signs: tuple[str, ...] = ()
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: str = ".*"

    def ignores(self, name: str) -> bool:
        """Whether the column of this `folded` name is left out if it is no field and no attribute."""
        return re.fullmatch(self.ignored, name) is not None


GOOGLE = Vocabulary(
    "Google Merchant",
    signs=("image_link", "google_product_category"),
    fields={
        "image": ("image_link",),
        "images": ("additional_image_link", "additional_image_links"),
        "category_path": ("product_type", "google_product_category"),
        "catalog_id": ("item_group_id",),
        "stock": ("quantity", "inventory", "sell_on_google_quantity", "quantity_to_sell_on_facebook"),
        "availability": ("availability",),
    },
    attributes={
        name: (name,)
        for name in ("brand", "gtin", "mpn", "color", "size", "material", "pattern", "gender", "age_group", "size_type")
    },
    ignored=(
        r".*link|condition|adult|.*shipping.*|tax.*|.*_date|sale_price.*|auto_pricing_min_price|cost_of_goods_sold|unit_pricing.*|"
        r"installment|subscription_cost|loyalty.*|identifier_exists|multipack|is_bundle|certification|energy.*|.*energy.*|"
        r"custom_label.*|promotion_id|product_(?:highlight|detail|length|width|height|weight)|(?:in|ex)cluded_destination|"
        r".*_country|pause|ads_.*|.*handling_time|transit_time_label|return_policy_label|size_system|age|google_.*|fb_.*"
    ),
)
SHOPIFY = Vocabulary(
    "Shopify",
    needs=(("handle", "url_handle"), ("title",)),
    signs=("image_src", "variant_price", "product_image_url", "body_html", "variant_sku", "option1_value"),
    fields={
        "id": ("handle", "url_handle"),
        "description": ("body_html", "description"),
        "category_path": ("product_category", "google_shopping_google_product_category", "type"),
        "image": ("image_src", "product_image_url"),
        "images": ("variant_image", "variant_image_url"),
        "price": ("variant_price", "price"),
        "stock": ("variant_inventory_qty", "inventory_quantity"),
    },
    attributes={
        "brand": ("vendor",),
        "gtin": ("variant_barcode", "barcode"),
        "mpn": ("google_shopping_mpn",),
        "gender": ("google_shopping_gender",),
        "age_group": ("google_shopping_age_group",),
        "tags": ("tags",),
    },
)
WOOCOMMERCE = Vocabulary(
    "WooCommerce",
    needs=(("name",),),
    signs=("regular_price", "in_stock", "attribute_1_name", "visibility_in_catalog"),
    fields={
        "id": ("id", "sku"),
        "title": ("name",),
        "description": ("description", "short_description"),
        "category_path": ("categories",),
        "images": ("images",),
        "price": ("regular_price", "sale_price", "price"),
        "stock": ("stock",),
        "availability": ("in_stock",),
    },
    attributes={"brand": ("brands", "brand"), "gtin": ("gtin_upc_ean_or_isbn",), "tags": ("tags",)},
)
PLAIN = Vocabulary(
    "table",
    fields={
        "id": ("id", "product_id", "item_id", "sku", "상품번호", "상품id", "상품코드"),
        "title": ("title", "name", "product_name", "product_title", "상품명", "제품명"),
        "description": ("description", "product_description", "상품설명", "상세설명"),
        "image": (
            "image", "image_link", "image_url", "image_path", "image_src", "main_image", "img", "img_url", "photo",
            "photo_url", "picture", "picture_url", "대표이미지", "이미지",
        ),
        "images": (
            "images", "additional_image_link", "additional_images", "image_urls", "image_links", "image_paths", "photos",
            "photo_urls", "pictures", "추가이미지",
        ),
        "category_path": ("category_path", "category", "categories", "product_type", "google_product_category", "카테고리"),
        "catalog_id": ("catalog_id", "item_group_id"),
        "price": ("price", "가격", "판매가"),
        "currency": ("currency", "currency_code", "price_currency"),
        "stock": ("stock", "quantity", "qty", "stock_quantity", "inventory", "재고", "재고수량"),
        "review_count": ("review_count", "reviews_count", "리뷰수"),
        "seller": ("seller", "판매자"),
        "split": ("split",),
    },
    attributes={
        name: (name,) for name in ("brand", "gtin", "mpn", "color", "size", "material", "pattern", "gender", "age_group")
    },
    ignored="(?!)",
)  # fmt: skip
FEEDS = (SHOPIFY, WOOCOMMERCE, GOOGLE)
