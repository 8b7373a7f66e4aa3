"""Serve a page of sweeper to browsers: its files, who may see it, and the thread and socket behind it."""
