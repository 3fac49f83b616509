"""A procedural shop that needs no download: drawn, titled, priced, shown and clicked by stated rules."""

from shoplens.synthetic.shop import SyntheticShop, synthesize

__all__ = ["SyntheticShop", "synthesize"]
