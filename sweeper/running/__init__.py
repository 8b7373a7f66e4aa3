"""Running a plan: settings, the work queue, a worker for each target, the life of a job, and events for observers.

`run` holds the entry points, `session` puts the parts together. Nothing here prints.
"""
