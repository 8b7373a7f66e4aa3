"""`Array`: any array of NumPy. Docstrings say shapes and units."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]
