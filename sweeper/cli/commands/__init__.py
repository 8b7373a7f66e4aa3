"""The commands of `sweeper`, one module each; `sweeper.cli.command_table` lists them."""
