"""The command `ccai`, one module to a subcommand."""
