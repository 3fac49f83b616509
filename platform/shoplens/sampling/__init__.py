"""Batch plans: which samples meet in which batch of an epoch, decided before any image is read.

A plan is an int64 array [steps, batch] of sample ids; a function of the metadata table, seed and epoch.
"""
