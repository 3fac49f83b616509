"""Leaf categories of the shop, each with its words, materials, variants and usual price."""

from __future__ import annotations

from dataclasses import dataclass

from shoplens.synthetic.silhouettes import Drawer, clothing, home, worn
from shoplens.synthetic.vocabulary import Word, words


@dataclass(frozen=True)
class Leaf:
    """A leaf category and the products in it.

    shapes      variants of each shape attribute, such as `sleeve`
    price       usual price in won
    upright     products stand on a floor; others lie or hang
    patterned   share of designs with a pattern
    group       the target group that titles name
    """

    path: tuple[str, str, str]
    words: Word
    draw: Drawer
    materials: tuple[str, ...]
    shapes: dict[str, tuple[Word, ...]]
    price: int
    upright: bool = False
    patterned: float = 0.6
    group: Word = Word("for every day", ("데일리",))

    @property
    def id(self) -> str:
        """`"Hand & Shoulder"` -> `"hand-shoulder"`, for the last name of the path."""
        return self.path[-1].lower().replace(" & ", "-").replace(" ", "-")


_SLEEVES = words("short sleeve=반팔", "long sleeve=긴팔/롱슬리브")
_FITS = words("slim fit=슬림핏", "straight fit=일자핏/스트레이트", "wide fit=와이드/통")
_WOMEN, _MEN, _UNISEX = (
    Word("women's", ("여성", "여자")),
    Word("men's", ("남성", "남자")),
    Word("unisex", ("남녀공용", "공용")),
)
_HOME, _KITCHEN = Word("home", ("인테리어", "거실")), Word("kitchen", ("주방", "홈카페"))


def _leaf(
    path: str,
    names: str,
    drawer: Drawer,
    materials: str,
    price: int,
    shapes: dict[str, tuple[Word, ...]],
    group: Word,
    upright: bool = False,
    patterned: float = 0.6,
) -> Leaf:
    top, middle, bottom = path.split(" > ")
    return Leaf(
        (top, middle, bottom),
        words(names)[0],
        drawer,
        tuple(materials.split(", ")),
        shapes,
        price,
        upright,
        patterned,
        group,
    )


LEAVES_OF_SHOP: tuple[Leaf, ...] = (
    _leaf(
        "Clothing > Tops > T-shirts",
        "T-shirt=티셔츠/티/라운드티",
        clothing.t_shirt,
        "cotton, linen",
        19000,
        {"sleeve": _SLEEVES, "neckline": words("round neck=라운드넥", "v-neck=브이넥")},
        _UNISEX,
    ),
    _leaf(
        "Clothing > Tops > Shirts",
        "shirt=셔츠/남방",
        clothing.shirt,
        "cotton, linen, denim",
        35000,
        {"sleeve": _SLEEVES, "collar": words("classic collar=카라", "band collar=차이나카라/헨리넥")},
        _MEN,
    ),
    _leaf(
        "Clothing > Tops > Hoodies",
        "hoodie=후드티/후디/후드",
        clothing.hoodie,
        "cotton, corduroy, velvet",
        45000,
        {"closure": words("pullover=풀오버", "zip-up=집업")},
        _UNISEX,
        patterned=0.4,
    ),
    _leaf(
        "Clothing > Tops > Sweaters",
        "sweater=스웨터/니트티/풀오버",
        clothing.sweater,
        "knit, wool",
        49000,
        {"neckline": words("round neck=라운드넥", "v-neck=브이넥", "turtleneck=터틀넥/폴라")},
        _WOMEN,
    ),
    _leaf(
        "Clothing > Bottoms > Trousers",
        "trousers=바지/팬츠",
        clothing.trousers,
        "cotton, denim, corduroy, wool",
        42000,
        {"fit": _FITS},
        _MEN,
        patterned=0.4,
    ),
    _leaf(
        "Clothing > Bottoms > Shorts",
        "shorts=반바지/숏팬츠",
        clothing.shorts,
        "cotton, linen, denim",
        27000,
        {"fit": _FITS},
        _UNISEX,
        patterned=0.5,
    ),
    _leaf(
        "Clothing > Bottoms > Skirts",
        "skirt=스커트/치마",
        clothing.skirt,
        "cotton, denim, satin, wool",
        33000,
        {"silhouette": words("pencil=H라인/펜슬", "a-line=A라인", "pleated=플리츠/주름")},
        _WOMEN,
    ),
    _leaf(
        "Clothing > One-piece > Dresses",
        "dress=원피스/드레스",
        clothing.dress,
        "cotton, linen, satin, knit",
        59000,
        {
            "sleeve": words("sleeveless=민소매/나시", "short sleeve=반팔", "long sleeve=긴팔"),
            "length": words("mini=미니", "midi=미디", "maxi=롱/맥시"),
            "neckline": words("round neck=라운드넥", "v-neck=브이넥"),
        },
        _WOMEN,
        patterned=0.7,
    ),
    _leaf(
        "Shoes > Everyday > Sneakers",
        "sneakers=운동화/스니커즈/단화",
        worn.sneaker,
        "canvas, leather, suede, nylon",
        69000,
        {
            "height": words("low-top=로우탑", "high-top=하이탑"),
            "stripe": words("no stripe=무라인", "side stripe=사이드라인", "triple stripe=삼선"),
        },
        _UNISEX,
        True,
        0.35,
    ),
    _leaf(
        "Shoes > Everyday > Boots",
        "boots=부츠/워커",
        worn.boot,
        "leather, suede, velvet",
        99000,
        {"height": words("ankle=앵클", "mid-calf=미들", "knee-high=롱/니하이")},
        _WOMEN,
        True,
        0.2,
    ),
    _leaf(
        "Shoes > Formal > Heels",
        "heels=구두/힐/펌프스",
        worn.heel,
        "leather, satin, suede, velvet",
        79000,
        {
            "heel": words("low heel=로우힐/3cm", "mid heel=미들힐/5cm", "high heel=하이힐/9cm"),
            "toe": words("pointed toe=뾰족코/포인티드", "round toe=라운드코"),
        },
        _WOMEN,
        True,
        0.3,
    ),
    _leaf(
        "Bags > Hand & Shoulder > Handbags",
        "handbag=핸드백/숄더백/가방",
        worn.handbag,
        "leather, suede, velvet, canvas",
        89000,
        {"strap": words("top handle=토트형/손잡이", "chain strap=체인")},
        _WOMEN,
        True,
        0.45,
    ),
    _leaf(
        "Bags > Hand & Shoulder > Tote bags",
        "tote bag=에코백/토트백/캔버스백",
        worn.tote,
        "canvas, cotton, nylon, denim",
        24000,
        {"strap": words("short handles=숏핸들", "long handles=롱핸들")},
        _UNISEX,
        patterned=0.75,
    ),
    _leaf(
        "Bags > Travel > Backpacks",
        "backpack=백팩/책가방/배낭",
        worn.backpack,
        "nylon, canvas, leather",
        65000,
        {"opening": words("zip top=지퍼형", "flap top=덮개형/플랩")},
        _UNISEX,
        True,
        0.5,
    ),
    _leaf(
        "Accessories > Wearables > Watches",
        "watch=손목시계/시계",
        worn.watch,
        "leather, nylon, canvas",
        119000,
        {"case": words("round case=원형", "square case=사각")},
        _MEN,
        patterned=0.2,
    ),
    _leaf(
        "Accessories > Wearables > Caps",
        "cap=모자/볼캡/야구모자",
        worn.cap,
        "cotton, denim, corduroy, wool",
        22000,
        {"brim": words("curved brim=커브챙", "flat brim=일자챙/스냅백")},
        _UNISEX,
        True,
        0.45,
    ),
    _leaf(
        "Accessories > Eyewear > Sunglasses",
        "sunglasses=선글라스/썬글라스",
        worn.sunglasses,
        "plastic, steel",
        45000,
        {"frame": words("round frame=동글이/원형", "square frame=사각", "cat-eye frame=캣아이")},
        _UNISEX,
        patterned=0.15,
    ),
    _leaf(
        "Furniture > Seating > Chairs",
        "chair=의자/식탁의자/체어",
        home.chair,
        "oak wood, velvet, leather, plastic",
        79000,
        {
            "back": words("padded back=등받이", "slat back=살대등받이/윈저"),
            "legs": words("wood legs=나무다리", "metal legs=철제다리"),
        },
        _HOME,
        True,
        0.35,
    ),
    _leaf(
        "Furniture > Seating > Sofas",
        "sofa=소파/쇼파",
        home.sofa,
        "velvet, leather, linen, corduroy",
        390000,
        {"seats": words("one seater=1인용", "two seater=2인용", "three seater=3인용")},
        _HOME,
        True,
        0.4,
    ),
    _leaf(
        "Furniture > Seating > Stools",
        "stool=스툴/보조의자",
        home.stool,
        "oak wood, velvet, leather, plastic",
        35000,
        {"leg count": words("three legs=3발", "four legs=4발")},
        _HOME,
        True,
        0.4,
    ),
    _leaf(
        "Furniture > Tables & Storage > Tables",
        "table=테이블/탁자/식탁",
        home.table,
        "oak wood, steel, plastic",
        149000,
        {
            "top": words("round top=원형", "square top=사각"),
            "legs": words("wood legs=나무다리", "metal legs=철제다리"),
        },
        _HOME,
        True,
        0.05,
    ),
    _leaf(
        "Furniture > Tables & Storage > Dressers",
        "dresser=서랍장/수납장",
        home.dresser,
        "oak wood, plastic, steel",
        129000,
        {"drawers": words("two drawers=2단", "three drawers=3단", "four drawers=4단")},
        _HOME,
        True,
        0.1,
    ),
    _leaf(
        "Furniture > Lighting > Lamps",
        "lamp=조명/스탠드/무드등",
        home.lamp,
        "linen, paper, steel",
        55000,
        {
            "stand": words("table lamp=탁상", "floor lamp=장스탠드/플로어"),
            "shade": words("drum shade=원통갓", "cone shade=고깔갓", "dome shade=돔갓"),
        },
        _HOME,
        True,
        0.45,
    ),
    _leaf(
        "Kitchen > Tableware > Mugs",
        "mug=머그컵/머그/컵",
        home.mug,
        "ceramic, enamel",
        12000,
        {"handle": words("round handle=둥근손잡이", "square handle=각손잡이", "no handle=손잡이없는")},
        _KITCHEN,
        True,
        0.75,
    ),
    _leaf(
        "Kitchen > Tableware > Plates",
        "plate=접시/플레이트",
        home.plate,
        "ceramic, enamel",
        15000,
        {"rim": words("slim rim=얇은테", "wide rim=두꺼운테", "square plate=사각")},
        _KITCHEN,
        patterned=0.7,
    ),
    _leaf(
        "Kitchen > Tableware > Bowls",
        "bowl=그릇/볼/공기",
        home.bowl,
        "ceramic, enamel, oak wood",
        13000,
        {"depth": words("shallow bowl=얕은", "deep bowl=깊은/면기")},
        _KITCHEN,
        True,
        0.65,
    ),
    _leaf(
        "Kitchen > Cookware > Pots",
        "pot=냄비/양수냄비/스튜팟",
        home.pot,
        "enamel, cast iron, steel",
        59000,
        {"lid": words("glass lid=유리뚜껑", "solid lid=통뚜껑")},
        _KITCHEN,
        True,
        0.2,
    ),
    _leaf(
        "Kitchen > Cookware > Frying pans",
        "frying pan=프라이팬/후라이팬",
        home.pan,
        "cast iron, steel, enamel",
        39000,
        {"handle": words("wood handle=나무손잡이", "black handle=블랙손잡이")},
        _KITCHEN,
        patterned=0.05,
    ),
    _leaf(
        "Kitchen > Cookware > Kettles",
        "kettle=주전자/케틀",
        home.kettle,
        "enamel, steel, ceramic",
        45000,
        {"handle": words("top handle=윗손잡이", "side handle=옆손잡이")},
        _KITCHEN,
        True,
        0.35,
    ),
    _leaf(
        "Kitchen > Tools > Knives",
        "knife=식칼/칼/주방칼",
        home.knife,
        "oak wood, plastic",
        29000,
        {"blade": words("chef knife=셰프나이프", "santoku knife=산도쿠", "paring knife=과도")},
        _KITCHEN,
        patterned=0.05,
    ),
)
