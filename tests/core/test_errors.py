"""Errors are caught by the names Python knows, and say what to do."""

import pickle

import pytest

from ciscribe import errors
from ciscribe.errors import CiscribeError, DependencyError, UnknownNameError, nearest

BUILTIN = {
    "SchemaError": ValueError, "InputError": ValueError, "DataMissingError": FileNotFoundError,
    "ConfigError": ValueError, "CheckpointError": ValueError, "UnknownNameError": KeyError,
    "DeviceError": RuntimeError, "DivergedError": ArithmeticError, "UnsupportedError": RuntimeError,
    "DependencyError": ImportError,
}


def test_errors__every_class_is_in_the_tree_and_in_its_drawing():
    things = vars(errors).items()
    classes = {name for name, c in things if isinstance(c, type) and issubclass(c, CiscribeError)}
    assert classes == {*BUILTIN, "CiscribeError"}
    for name in classes:
        assert name in (errors.__doc__ or ""), f"{name} is missing in the drawn tree"


@pytest.mark.parametrize(("name", "builtin"), BUILTIN.items())
def test_errors__is_its_builtin_and_keeps_the_message(name, builtin):
    message = "expected 3 columns; got 2; add the third"
    error = getattr(errors, name)(message)
    assert isinstance(error, builtin)
    assert str(error) == message
    assert str(pickle.loads(pickle.dumps(error))) == message  # errors travel out of data-loader workers


def test_unknown_name_error__prints_no_quotes():
    assert str(KeyError("no model 'x'")) != "no model 'x'"  # what the override is for
    assert str(UnknownNameError("no model 'x'")) == "no model 'x'"
    assert str(UnknownNameError()) == ""


def test_nearest__names_the_close_option_and_lists_all():
    assert nearest("sex2exp", ["prism", "seq2exp"]) == "did you mean 'seq2exp'? options: prism, seq2exp"


def test_nearest__without_a_close_option_only_lists():
    assert nearest("zzz", iter(["prism", "caduceus"])) == "options: caduceus, prism"
    assert nearest("zzz", []) == "options: (none)"


def test_dependency_error_of__says_how_to_install():
    text = str(DependencyError.of("macs3", "peaks", "calling peaks with MACS3"))
    assert "calling peaks with MACS3" in text
    assert "pip install 'ciscribe[peaks]'" in text
