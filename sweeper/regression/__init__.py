"""Regression tests for pictures: cases, baselines, accept, check, attribution, calibration, and their reports.

`sweeper.images` compares two pictures, and `sweeper.running` runs trials. Nothing here prints.
"""
