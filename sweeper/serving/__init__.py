"""Serve a page of sweeper to browsers: who may see it, and the thread and socket behind it."""
