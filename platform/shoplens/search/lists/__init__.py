"""Lists of similar products: how they are made, and their evaluation by content and by logs."""
