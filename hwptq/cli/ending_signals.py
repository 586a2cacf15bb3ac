"""The signals that end the command, and what a user is told then."""

import signal

ENDING = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "terminated"}
