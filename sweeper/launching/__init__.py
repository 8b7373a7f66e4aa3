"""Starts ComfyUIs for a run, watches them, and ends them with it; see README.md."""
