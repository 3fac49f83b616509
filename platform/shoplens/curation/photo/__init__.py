"""What a photo is for curation: signals, measured once, and the cut by them."""
