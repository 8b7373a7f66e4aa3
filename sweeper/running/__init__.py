"""How a plan is run: options, events for whoever watches, the schedule, one lane per target, one job's way.

`session` puts these together, `sweeper.running.run` is the door to it. Nothing here prints.
"""
