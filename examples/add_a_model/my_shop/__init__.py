"""Models of one shop, in a repository of its own."""
