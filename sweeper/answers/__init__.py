"""Answers: what the parts of an answer are, and how a terminal, JSON, Markdown and HTML show them.

A question is a function of a room above (`tables`, `running`, `regression`), which returns a frozen answer. Its fields
are what `--json` prints; its method `parts` gives the words and tables.
"""
