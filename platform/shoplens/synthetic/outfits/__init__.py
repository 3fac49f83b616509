"""Outfits: photos of one figure that wears several products, each with attributes of its own and its exact mask.

So a search by photo and category word can be judged: the answer for `shoes` must not tell of the skirt.
"""

from shoplens.synthetic.outfits.job import synthesize_outfits
from shoplens.synthetic.outfits.settings import Outfits

__all__ = ["Outfits", "synthesize_outfits"]
