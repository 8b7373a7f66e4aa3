"""Tables of results: their rows and columns, the DataFrame, the files it is exported to, and summaries by group."""
