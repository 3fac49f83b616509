"""Losses, and how embeddings meet across workers."""
