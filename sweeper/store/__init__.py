"""A results folder on disk: its database and its files.

`store` has the queries, `database` opens the file and its schema, `records` are the rows as values, and `artifacts`
names and saves files. Running trials and showing results do not belong here.
"""

from sweeper.store.store import FILE_NAME, Store

__all__ = ["FILE_NAME", "Store"]
