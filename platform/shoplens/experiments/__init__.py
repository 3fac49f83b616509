"""Online experiments: who sees which arm, what happened, and what it means."""
