"""Silhouettes of all kinds of products, drawn from back to front on a `Sketch`.

Every drawer takes `(sketch, shape, form)`. `shape` names the variant of each shape attribute, for example
`{"sleeve": "long sleeve", "neckline": "v-neck"}`; titles may mention them. `form` is eight numbers in [-1, 1] that
vary designs with equal words, such as their length, flare or pocket position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shoplens.synthetic.sketch import Sketch

Shape = Mapping[str, str]
Form = Sequence[float]
Drawer = Callable[[Sketch, Shape, Form], None]
