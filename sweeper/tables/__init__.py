"""Tables of results: the DataFrame, the files it is exported to, and summaries by group."""
