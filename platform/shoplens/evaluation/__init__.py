"""How good a model is: tasks over a split's vectors, metrics with intervals, the report."""
