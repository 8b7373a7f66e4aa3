"""What is known of a results folder, and the files in it: the database, the records it holds, the artifacts.

`store` has the queries, `database` opens and prepares the file, `records` are the frozen rows, `artifacts` names and
places files. What runs and what is shown of it is not here.
"""

from sweeper.store.store import FILE_NAME, Store

__all__ = ["FILE_NAME", "Store"]
