"""Exports of a run's pictures with their table, in the file formats of other tools. Nothing is uploaded."""
