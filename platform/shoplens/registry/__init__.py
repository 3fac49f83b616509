"""MLflow: runs with their provenance, model versions, gates, promotion and rollback."""
