"""The class under its name of shoplens 0.1: MLflow keeps a pyfunc's code with the model, and that code imports it here."""

from shoplens.packages.photo_embedder import PhotoEmbedder

__all__ = ["PhotoEmbedder"]
