"""The silhouette of each kind of product, drawn back to front on a `Sketch`.

Every drawer takes `(sketch, shape, form)`: `shape` names the variant of each shape attribute that the
title may mention (`{"sleeve": "long sleeve", "neckline": "v-neck"}`), `form` is eight numbers in [-1, 1] that
make one design differ from the next of the same words (length, flare, where the pocket sits ...).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from shoplens.synthetic.sketch import Sketch

Shape = Mapping[str, str]
Form = Sequence[float]
Drawer = Callable[[Sketch, Shape, Form], None]
