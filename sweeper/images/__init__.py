"""Compare two pictures, films, sounds or texts in numbers, and compute metrics of one picture.

Start at `compare` for pictures. What a check accepts is decided in `sweeper.regression`.
"""
