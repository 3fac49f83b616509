"""Names of shoplens 0.1 that pyfuncs registered by it import."""
