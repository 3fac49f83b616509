"""Lists of similar products: what they hold, and what logs say of them."""
