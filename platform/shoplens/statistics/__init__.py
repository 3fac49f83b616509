"""Intervals by resampling, and calibration of probabilities."""
