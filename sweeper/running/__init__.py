"""How a plan is run: options, events for whoever watches, the schedule, one lane per target, one job's way.

`sweeper.runner` puts these together. Nothing here prints.
"""
