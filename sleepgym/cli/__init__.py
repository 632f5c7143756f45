"""The command line: ``sleepgym`` with one subcommand per module."""
