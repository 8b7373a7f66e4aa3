"""The points of a search: how they become trials, and which to try next. Only `proposals` needs Optuna and SciPy."""
