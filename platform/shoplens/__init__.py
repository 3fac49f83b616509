"""Train, track and serve e-commerce vision-language models."""
