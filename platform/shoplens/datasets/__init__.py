"""Datasets of products: the on-disk format, and what fills it (importers, the synthetic shop)."""
