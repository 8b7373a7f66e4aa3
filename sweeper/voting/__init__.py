"""Blind votes: two pictures that differ in one axis, which is better? The server, the next pair, and what votes say.

`pictures` reads what can be voted on, `pair_choice` chooses the next pair, `ballot` gives pairs to voters and stores
their answers, `vote_app` and `vote_server` show it in a browser. `vote_tally` ranks, `vote_files` moves votes between
folders.
"""
