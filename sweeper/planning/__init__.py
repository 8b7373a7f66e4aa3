"""Expand an experiment into its trials, in written order and in the order in which they run.

`plan` puts the other modules together: `grid` compiles one block into values as functions of coordinates,
`trial_filters` selects trials, `order` decides how the axes nest, `compatibility` checks a plan against a server.
"""
