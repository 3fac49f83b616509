"""Linear heads on embeddings: probes, and the attribute extractor that packages ship."""
