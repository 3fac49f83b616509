"""Batch plans: the samples of every batch of an epoch, decided before any image is read.

A plan is an int64 array [steps, batch] of sample ids. It is a pure function of the metadata table, seed and epoch.
"""
