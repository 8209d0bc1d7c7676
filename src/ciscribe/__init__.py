"""ciscribe reads, explains and writes the cis-regulatory code.

Importing the package does no work: every room is imported by name, for example
``from ciscribe import models`` or ``from ciscribe.data import world``.
"""

__version__ = "0.1.0"
