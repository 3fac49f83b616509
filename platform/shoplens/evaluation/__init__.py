"""Evaluation of models: tasks over the vectors of a split, metrics with intervals, the report."""
