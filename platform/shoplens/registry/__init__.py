"""MLflow: runs and their provenance, packages and their versions, promotion and the way back."""
