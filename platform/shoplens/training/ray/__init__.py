"""The training loop on Ray Train, fed by Ray Data."""
