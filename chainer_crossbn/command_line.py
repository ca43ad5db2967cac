"""What the commands have in common: how they refuse what can't be done."""

import argparse


class UsageError(Exception):
    """What the user asked for can't be done; the message is one line that says why."""


class Parser(argparse.ArgumentParser):
    """Raises :class:`UsageError` where argparse would print its usage and exit."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        raise UsageError(f"{message} (see --help)")
