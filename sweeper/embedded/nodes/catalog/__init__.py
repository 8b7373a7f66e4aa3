"""The catalogue of node classes: descriptions only, light enough to be listed without NumPy or Pillow."""

from __future__ import annotations
