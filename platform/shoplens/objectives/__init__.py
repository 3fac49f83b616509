"""Losses, and the exchange of embeddings between workers."""
