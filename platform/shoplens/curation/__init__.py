"""From raw image-text pairs to clean ones."""
