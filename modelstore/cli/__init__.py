"""The command line: an entry point that decides nothing."""
