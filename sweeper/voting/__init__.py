"""Blind votes: two pictures that differ in one axis, which is better? The server, the next pair, and files of votes.

`pair_choice` chooses the next pair, `ballot` gives pairs to voters and stores their answers, and `vote_server` shows it
in a browser. `vote_files` moves votes between folders. In `sweeper.tables`, `vote_pictures` reads what can be voted on,
and `vote_tally` ranks.
"""
