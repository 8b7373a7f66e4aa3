"""What makes a plan fast and exact: columns of values, one block's grid, what is selected from it, how it nests.

`sweeper.planning.plan` puts the pieces together; nothing here is meant for other callers.
"""
