"""Finding products by vector: the index, its filters and its category slices."""
