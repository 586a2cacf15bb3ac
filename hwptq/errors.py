"""Errors that a user can act on: one line each, with the exit code of the command line.

Passes raise plain ValueError, because TVM's FFI turns any other class into RuntimeError on its way out of
a Sequential. These classes are for everything outside the passes.
"""


class HwptqError(Exception):
    """Base of all errors shown to the user as one line; `exit_code` is the command's status."""

    exit_code = 2


class InputError(HwptqError):
    """The model, the data, the descriptor or an option is wrong: exit code 2."""


class UnsupportedError(HwptqError):
    """The model can't be compiled, or nothing of it could be quantized: exit code 3."""

    exit_code = 3


class BudgetError(HwptqError):
    """No assignment of bit widths fits the budget: exit code 4."""

    exit_code = 4


class AccuracyError(HwptqError):
    """The emitted code loses more than --max-drop allows: exit code 5."""

    exit_code = 5


class StrictError(HwptqError):
    """There are warnings, and --strict allows none: exit code 5."""

    exit_code = 5


class MismatchError(HwptqError):
    """The emitted code computes something else than the reference: exit code 6."""

    exit_code = 6
