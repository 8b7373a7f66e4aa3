"""Workflows in the format that ComfyUI's *Save* writes (the UI format), converted to the API format."""
