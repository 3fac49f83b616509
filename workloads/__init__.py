"""What `ray job submit` runs: one short file per job."""
