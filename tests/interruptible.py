"""The command line as a program that Ctrl-C reaches, for tests that stop it."""

# Whoever runs the tests in the background may have Ctrl-C ignored, which would be inherited.
PROGRAM = """\
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from bascule.cli import main
main()
"""
