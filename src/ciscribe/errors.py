"""Every exception of the project, and how an error is worded.

::

    CiscribeError
    ├── SchemaError        (ValueError)         an object breaks its contract (docs/spec.md)
    ├── InputError         (ValueError)         a file holds something it should not
    ├── DataMissingError   (FileNotFoundError)  a file that is needed is not there
    ├── ConfigError        (ValueError)         a configuration cannot be used
    ├── CheckpointError    (ValueError)         a saved model or run does not fit what reads it
    ├── UnknownNameError   (KeyError)           a registry holds no member of that name
    ├── DeviceError        (RuntimeError)       a GPU was asked for and is not there
    ├── DivergedError      (ArithmeticError)    a training left the finite numbers
    ├── UnsupportedError   (RuntimeError)         a method cannot be used on this model
    └── DependencyError    (ImportError)        an optional package is not installed

A message says what was expected, what came, and what to do. A fault in a table quotes a count and the
first offender. A wrong choice lists the options and the nearest one.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class CiscribeError(Exception):
    """Base of every error that ciscribe raises on purpose."""


class SchemaError(CiscribeError, ValueError):
    """An array or table breaks the contract of its row in `docs/spec.md`."""


class InputError(CiscribeError, ValueError):
    """A file was read and holds something that cannot be used."""


class DataMissingError(CiscribeError, FileNotFoundError):
    """A file or folder that is needed does not exist."""


class ConfigError(CiscribeError, ValueError):
    """A configuration has an unknown key, a wrong type or an impossible value."""


class CheckpointError(CiscribeError, ValueError):
    """A saved model or run folder is damaged, of another model, or of another version."""


class UnknownNameError(CiscribeError, KeyError):
    """A registry has no member of that name."""

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0]) if self.args else ""


class DeviceError(CiscribeError, RuntimeError):
    """The device that was asked for does not exist on this machine."""


class DivergedError(CiscribeError, ArithmeticError):
    """The loss of a training became NaN or infinite."""


class UnsupportedError(CiscribeError, RuntimeError):
    """A method has no answer for this model: which layer, and what to use instead."""


class DependencyError(CiscribeError, ImportError):
    """A package of an optional extra is not installed."""

    @classmethod
    def of(cls, package: str, extra: str, what: str) -> "DependencyError":
        """Error for a missing `package`, naming the `extra` that installs it and `what` needs it."""
        return cls(f"{what} needs the package '{package}', which is not installed; "
                   f"install it with: pip install 'ciscribe[{extra}]'")


def nearest(name: str, options: Iterable[str]) -> str:
    """Say which of `options` a wrong `name` was probably meant to be.

    Returns
    -------
    str
        A clause to end an error with: ``did you mean 'x'? options: a, b, x``.
    """
    options = sorted(options)
    close = get_close_matches(name, options, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}options: {', '.join(options) if options else '(none)'}"
