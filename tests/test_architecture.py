"""The plan of the house, enforced: who may import whom, and what no file may do.

The rules read the syntax trees of `src/ciscribe`; ARCHITECTURE.md says what the rooms are for. Each rule is a
function from one module to its faults, and each is shown to fail on a small bad source of its own.
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

SRC = Path(__file__).resolve().parent.parent / "src"

# An import points to a later line of this list only, or stays inside its own folder.
ROWS = (
    ("cli",),
    ("demo",),
    ("workflow",),
    ("report",),
    ("interpret", "elements", "variants", "links", "design"),
    ("perturb", "train", "testing"),
    ("data", "models"),
    ("io", "nn", "plot", "oracle"),
    ("results", "pwm"),
    ("sequence", "intervals"),
    ("schema", "card", "provenance", "config"),
    ("errors",),
    ("",),  # the package itself: its version
)
ROW_OF = {room: row for row, rooms in enumerate(ROWS) for room in rooms}

HOMES = {"lightning": ("train",), "pytorch_lightning": ("train",), "matplotlib": ("plot", "report")}
WITHOUT_FILES = ("models", "oracle", "train", "perturb", "interpret", "variants", "design")
FILE_CALLS = {"open", "write_text", "write_bytes", "read_text", "read_bytes", "save_file", "load_file",
              "to_csv", "to_parquet", "read_csv", "read_parquet", "write_json", "atomic_path",
              "atomic_folder", "torch.save", "torch.load", "np.save", "np.load"}
MAY_CALL = {
    "ciscribe.models.registry": FILE_CALLS,  # saves and loads models
    "ciscribe.models.hub": FILE_CALLS,  # fetches models from elsewhere, and writes folders for others to fetch
    "ciscribe.models.weights": {"read_text", "load_file", "torch.load"},  # published weights, never code
    "ciscribe.train.fit": {"torch.load"},  # the checkpoint that lightning wrote
}
LAZY = "ciscribe.cli"  # may name its rooms in import_module, so that --help answers without loading torch
MAX_LINES, MAX_LINES_MODEL = 800, 350
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
# Folders that may hold fewer than three files beside __init__, each with its reason.
THIN_FOLDERS: dict[str, str] = {}


class Module(NamedTuple):
    """One source file: its dotted name, text and tree."""

    name: str
    source: str
    tree: ast.Module

    @property
    def room(self) -> str:
        """The part of the name that stands in ROWS."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""


def parse(name: str, source: str) -> Module:
    return Module(name, source, ast.parse(source))


@cache
def modules() -> list[Module]:
    found = []
    for path in sorted((SRC / "ciscribe").rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(parse(name, path.read_text(encoding="utf-8")))
    return found


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every absolute import; a room taken from the package counts as its own name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def our_imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and room of every import of ours, ``""`` for the package itself."""
    for line, name in imports(tree):
        parts = name.split(".")
        if parts[0] == "ciscribe":
            room = parts[1] if len(parts) > 1 else ""
            yield line, "" if room.startswith("__") else room


def calls(tree: ast.AST) -> Iterator[tuple[int, str, ast.Call]]:
    """Line and last name of everything that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                yield node.lineno, node.func.id, node
            elif isinstance(node.func, ast.Attribute):
                yield node.lineno, node.func.attr, node


def import_to_a_later_row(module: Module) -> list[str]:
    if module.room not in ROW_OF:
        return [f"{module.name} is in no row of ROWS"]
    faults = []
    for line, room in our_imports(module.tree):
        if room not in ROW_OF:
            faults.append(f"line {line}: {room} is in no row of ROWS")
        elif room != module.room and ROW_OF[room] <= ROW_OF[module.room]:
            faults.append(f"line {line}: {module.room or 'the package'} may not import {room}")
    return faults


def relative_import(module: Module) -> list[str]:
    return [f"line {node.lineno}: relative import" for node in ast.walk(module.tree)
            if isinstance(node, ast.ImportFrom) and node.level > 0]


def import_inside_function(module: Module) -> list[str]:
    faults = []
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            faults += [f"line {line}: import of ciscribe inside a function" for line, _ in our_imports(node)]
            for line, name, call in calls(node):
                text = ast.unparse(call.args[0]) if call.args else ""
                dynamic = name in ("import_module", "__import__") and module.name != LAZY
                if dynamic and text.lstrip("f'\"").startswith("ciscribe"):
                    faults.append(f"line {line}: import of {text} inside a function")
    return sorted(set(faults))


def library_outside_its_home(module: Module) -> list[str]:
    return [f"line {line}: {name} belongs in {' and '.join(HOMES[top])}"
            for line, name in imports(module.tree)
            if (top := name.split(".")[0]) in HOMES and module.room not in HOMES[top]]


def file_touched_by_pure_room(module: Module) -> list[str]:
    if module.room not in WITHOUT_FILES:
        return []
    forbidden = FILE_CALLS - MAY_CALL.get(module.name, set())
    faults = [f"line {line}: {module.room} may not import ciscribe.io"
              for line, room in our_imports(module.tree) if room == "io"]
    for line, name, call in calls(module.tree):
        if forbidden & {name, ast.unparse(call.func)}:
            faults.append(f"line {line}: {module.room} may not touch files: {ast.unparse(call.func)}()")
    return faults


def too_long(module: Module) -> list[str]:
    is_model = module.name.startswith("ciscribe.models.")
    limit = MAX_LINES_MODEL if is_model else MAX_LINES
    n_lines = len(module.source.splitlines())
    return [f"{n_lines} lines; at most {limit}"] if n_lines > limit else []


def vague_name(module: Module) -> list[str]:
    return [f"'{part}' says nothing; name the module by its science" for part in module.name.split(".")
            if part.lstrip("_") in VAGUE]


def future_annotations(module: Module) -> list[str]:
    return [f"line {line}: annotations are evaluated here (jaxtyping reads them)"
            for line, name in imports(module.tree) if name == "__future__.annotations"]


def bare_assert(module: Module) -> list[str]:
    if module.name == "ciscribe.testing":  # its asserts are its product
        return []
    return [f"line {node.lineno}: raise an error of ciscribe.errors instead of assert"
            for node in ast.walk(module.tree) if isinstance(node, ast.Assert)]


def missing_docstring(module: Module) -> list[str]:
    faults = [] if ast.get_docstring(module.tree) else ["no module docstring"]
    return faults + [f"line {node.lineno}: {node.name} has no docstring" for node in module.tree.body
                     if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                     and not node.name.startswith("_") and not ast.get_docstring(node)]


def private_name_of_another_module(module: Module) -> list[str]:
    return [f"line {line}: {name} is private to its module; make it public or move it"
            for line, name in imports(module.tree)
            if name.startswith("ciscribe.") and (last := name.split(".")[-1]).startswith("_")
            and not last.startswith("__")]


def global_statement(module: Module) -> list[str]:
    return [f"line {node.lineno}: global {', '.join(node.names)}" for node in ast.walk(module.tree)
            if isinstance(node, ast.Global)]


def thin_folders(names: list[str], excepted: dict[str, str]) -> list[str]:
    """Folders with fewer than three files beside __init__, and exceptions that are no longer needed."""
    packages = {name for name in names if any(other.startswith(name + ".") for other in names)}
    sizes = Counter(name.rpartition(".")[0] for name in names)
    faults = [f"{folder} holds {sizes[folder]} files; a folder holds three or more, else it is one module"
              for folder in packages if sizes[folder] < 3 and folder not in excepted]
    return faults + [f"{folder} needs no exception" for folder in excepted
                     if folder not in packages or sizes[folder] >= 3]


# Each rule with a bad module that it must catch and a good one, as near as can be, that it must pass.
RULES: dict[Callable[[Module], list[str]], list[tuple[str, str, bool]]] = {
    import_to_a_later_row: [
        ("ciscribe.models.toy", "from ciscribe.train import fit", True),
        ("ciscribe.models.toy", "import ciscribe.data.windows", True),  # a sibling
        ("ciscribe.io.bed", "from ciscribe import models", True),
        ("ciscribe.errors", "import ciscribe.schema", True),
        ("ciscribe.io.bed", "if TYPE_CHECKING:\n    from ciscribe.cli import app", True),
        ("ciscribe.attic", "", True),
        ("ciscribe.io.bed", "import ciscribe.attic", True),
        ("ciscribe", "from ciscribe.errors import CiscribeError", True),
        ("ciscribe.models.toy", "from ciscribe.models.registry import create", False),
        ("ciscribe.models.toy", "from ciscribe.nn import ssm", False),
        ("ciscribe.provenance", "from ciscribe import __version__", False),
    ],
    relative_import: [
        ("ciscribe.io.bed", "from .tracks import Track", True),
        ("ciscribe.io.bed", "from .. import errors", True),
        ("ciscribe.io.bed", "from ciscribe.io.tracks import Track", False),
    ],
    import_inside_function: [
        ("ciscribe.cli", "def run():\n    from ciscribe import workflow", True),
        ("ciscribe.cli", "class A:\n    def run(self):\n        import ciscribe.workflow", True),
        ("ciscribe.workflow", "def run(name):\n    return import_module(f'ciscribe.models.{name}')", True),
        ("ciscribe.cli", "def run():\n    return import_module('ciscribe.workflow.run')", False),
        ("ciscribe.cli", "from ciscribe import workflow\ndef run():\n    import macs3", False),
    ],
    library_outside_its_home: [
        ("ciscribe.models.toy", "import lightning as L", True),
        ("ciscribe.elements.call", "def f():\n    from matplotlib import pyplot", True),
        ("ciscribe.plot.tracks", "from matplotlib.axes import Axes", False),
        ("ciscribe.train.fit", "import lightning as L", False),
    ],
    file_touched_by_pure_room: [
        ("ciscribe.train.fit", "from ciscribe.io import tracks", True),
        ("ciscribe.models.toy", "def f(p):\n    with open(p) as h:\n        return h", True),
        ("ciscribe.oracle", "def f(p):\n    p.write_text('x')", True),
        ("ciscribe.perturb", "def f(p, x):\n    torch.save(x, p)", True),
        ("ciscribe.train.metrics", "def f(p, table):\n    table.to_csv(p)", True),
        ("ciscribe.train.fit", "def f(p):\n    return open(p)", True),
        ("ciscribe.train.fit", "def f(p):\n    return torch.load(p)", False),
        ("ciscribe.models.registry", "from ciscribe.io import genome", True),
        ("ciscribe.models.registry", "def f(p):\n    return open(p)", False),
        ("ciscribe.io.bed", "def f(p):\n    return open(p)", False),
    ],
    too_long: [
        ("ciscribe.io.bed", "x = 1\n" * 801, True),
        ("ciscribe.models.toy", "x = 1\n" * 351, True),
        ("ciscribe.io.bed", "x = 1\n" * 800, False),
    ],
    vague_name: [
        ("ciscribe.io.utils", "", True),
        ("ciscribe.common.bed", "", True),
        ("ciscribe.io._helpers", "", True),
        ("ciscribe.io.bed", "", False),
    ],
    future_annotations: [
        ("ciscribe.io.bed", "from __future__ import annotations", True),
        ("ciscribe.io.bed", "from __future__ import generator_stop", False),
    ],
    bare_assert: [
        ("ciscribe.io.bed", "def f(x):\n    assert x", True),
        ("ciscribe.testing", "def f(x):\n    assert x", False),
    ],
    missing_docstring: [
        ("ciscribe.io.bed", "x = 1", True),
        ("ciscribe.io.bed", "'''Why.'''\ndef read(): pass", True),
        ("ciscribe.io.bed", "'''Why.'''\nclass Bed: pass", True),
        ("ciscribe.io.bed", "'''Why.'''\ndef _inner(): pass\ndef read():\n    '''Read.'''", False),
    ],
    private_name_of_another_module: [
        ("ciscribe.io.bed", "from ciscribe.io.text import _open", True),
        ("ciscribe.io.bed", "from ciscribe import __version__\nfrom os import _exit", False),
    ],
    global_statement: [
        ("ciscribe.io.bed", "CACHE = 1\ndef f():\n    global CACHE\n    CACHE = 2", True),
        ("ciscribe.io.bed", "def f():\n    x = 1\n    def g():\n        nonlocal x", False),
    ],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_architecture__every_module_obeys(rule):
    faults = [f"{module.name}: {fault}" for module in modules() for fault in rule(module)]
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize(("rule", "name", "source", "is_bad"),
                         [(rule, *case) for rule, cases in RULES.items() for case in cases],
                         ids=lambda value: getattr(value, "__name__", None))
def test_architecture__rule_catches_the_bad_and_passes_the_good(rule, name, source, is_bad):
    assert bool(rule(parse(name, source))) == is_bad


def test_architecture__every_rule_is_shown_to_fail_and_to_pass():
    for rule, cases in RULES.items():
        assert {is_bad for *_, is_bad in cases} == {True, False}, rule.__name__


def test_architecture__reads_the_whole_package():
    names = [module.name for module in modules()]
    assert {"ciscribe", "ciscribe.errors", "ciscribe.schema"} <= set(names)
    assert len(names) == len(set(names))


def test_folders__hold_three_files_or_say_why():
    assert not thin_folders([module.name for module in modules()], THIN_FOLDERS)


def test_thin_folders__catches_the_thin_and_the_needless_exception():
    thin = ["ciscribe", "ciscribe.a", "ciscribe.b", "ciscribe.io", "ciscribe.io.bed", "ciscribe.io.genes"]
    assert thin_folders(thin, {}) == [
        "ciscribe.io holds 2 files; a folder holds three or more, else it is one module"]
    assert not thin_folders(thin, {"ciscribe.io": "being built"})
    assert not thin_folders([*thin, "ciscribe.io.tracks"], {})
    assert thin_folders([*thin, "ciscribe.io.tracks"], {"ciscribe.io": "being built"}) == [
        "ciscribe.io needs no exception"]
    assert thin_folders(thin, {"ciscribe.io": "x", "ciscribe.gone": "x"}) == [
        "ciscribe.gone needs no exception"]


def import_cost(name: str) -> tuple[float, set[str]]:
    """Seconds (best of three fresh interpreters) and the top packages that importing `name` loads."""
    code = (f"import sys, time; start = time.perf_counter(); import {name}; "
            "print(time.perf_counter() - start, *{m.split('.')[0] for m in sys.modules})")
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, check=True, capture_output=True, text=True) for _ in range(3)]
    words = [run.stdout.split() for run in runs]
    return min(float(run[0]) for run in words), set(words[0][1:])


def test_import__of_the_package_is_fast_and_light():
    seconds, loaded = import_cost("ciscribe")
    assert seconds < 0.5
    assert not loaded & {"torch", "pandas", "numpy", "lightning", "matplotlib"}


def test_import__of_the_command_line_loads_no_torch():
    _, loaded = import_cost("ciscribe.cli")
    assert not loaded & {"torch", "lightning"}


def test_import_cost__sees_what_is_loaded():
    seconds, loaded = import_cost("ciscribe.schema")
    assert {"ciscribe", "pandas", "numpy"} <= loaded
    assert "torch" not in loaded
    assert seconds > 0.01
