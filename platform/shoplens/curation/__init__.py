"""Curation: clean image-text pairs, classes of product photos, topics with candidates, click rates from logs."""
