"""Datasets of products: the on-disk format, importers, photos, preprocessing and tokenizers."""
