"""A procedural shop that needs no download: photos, titles, prices, impressions and clicks follow stated rules."""

from shoplens.synthetic.shop import SyntheticShop, synthesize

__all__ = ["SyntheticShop", "synthesize"]
