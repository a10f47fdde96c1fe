"""The `niwaki` command. Strings become objects here, and only here."""

from niwaki.cli.app import main

__all__ = ["main"]
