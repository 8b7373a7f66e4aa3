"""Holding pictures to what was accepted: cases, baselines, accept, check, attribution, calibration, and their reports.

How two pictures are measured is `sweeper.images`; how trials are run is `sweeper.runner`. Nothing here prints.
"""
