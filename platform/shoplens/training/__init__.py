"""The training loop; `ray/` runs it on a cluster."""
