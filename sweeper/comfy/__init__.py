"""The server's language: targets, the dialects as sans-IO flows, the HTTP client, the event stream.

Nothing here knows trials, stores or runs.
"""
