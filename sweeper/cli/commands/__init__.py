"""The commands, one module each; `sweeper.cli` holds their table."""
