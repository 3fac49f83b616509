"""A trained model as files, and how it is called in batches."""
