"""The command line: one file a command, which parses, calls what ``guidedflow`` exports, and prints."""

from guidedflow.cli.app import COMMANDS, main

__all__ = ["COMMANDS", "main"]
