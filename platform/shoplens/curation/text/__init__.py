"""What a title or a query is: its normal form, its signals, and what it must not contain. Pure functions of texts."""
