"""The command line: parse, call :mod:`wszoo.api`, print. One small file a group of verbs."""

from __future__ import annotations

from wszoo.cli.app import main

__all__ = ["main"]
