"""Towers, and the models built from them."""
