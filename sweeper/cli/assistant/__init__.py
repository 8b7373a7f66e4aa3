"""`sweeper mcp`: commands as tools of the Model Context Protocol, in one folder and within a person's budget."""
