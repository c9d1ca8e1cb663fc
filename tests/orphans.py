"""Processes that outlive nobody."""

from __future__ import annotations

import subprocess
import sys


def check_ends_with_its_starter(program: str, started: int = 1) -> None:
    """See that what a program starts ends when the program is killed.

    Args:
        program: Starts so many processes, each of which says `up`.
        started: How many.
    """
    starter = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        assert starter.stdout is not None
        # Not line by line: two of them may write both words before both ends of lines.
        assert starter.stdout.read(len("up\n") * started).count("up") == started
    finally:
        starter.kill()
    starter.communicate(timeout=60)  # the pipe is closed when the last of them has ended
