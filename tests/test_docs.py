"""The documentation tells the truth: its code runs, its commands parse, its links lead somewhere.

A block that cannot run here has `<!-- not run: reason -->` on the line above it, and is reported as skipped.
"""

import ast
import doctest
import importlib
import inspect
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from ciscribe.cli import app

ROOT = Path(__file__).resolve().parent.parent
EXECUTED = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
LINKED = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"),
                 *(ROOT / "benchmarks").rglob("*.md"), *(ROOT / "validation").rglob("*.md")])
MODULES = sorted((ROOT / "src" / "ciscribe").rglob("*.py"))
SHELLS = ("bash", "console", "sh", "shell")

FENCE = re.compile(r"(?:^<!-- not run: *(?P<reason>.*?) *-->[ \t]*\n+)?"
                   r"^(?P<indent> *)```(?P<language>[\w+-]*)[^\n]*\n(?P<body>.*?)^(?P=indent)```[ \t]*$",
                   flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]:\s*(\S+)",
                  flags=re.MULTILINE)


class Block(NamedTuple):
    """A fenced block of a page: language, text, first line in the page, and why it is not run (or None)."""

    language: str
    text: str
    line: int
    reason: str | None


def blocks(page: str) -> list[Block]:
    found = []
    for match in FENCE.finditer(page):
        indent = match["indent"]
        text = re.sub(rf"^{indent}", "", match["body"], flags=re.MULTILINE)
        line = page.count("\n", 0, match.start("body")) + 1
        found.append(Block(match["language"], text, line, match["reason"]))
    return found


def run_blocks(page: str, name: str) -> int:
    """Execute the Python blocks of a page in one namespace; line numbers of a traceback are the page's."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    ran = [b for b in blocks(page) if b.language == "python" and b.reason is None]
    for block in ran:
        exec(compile("\n" * (block.line - 1) + block.text, name, "exec"), namespace)
    return len(ran)


def commands(text: str) -> list[list[str]]:
    """Simple commands of a shell block, without prompts, comments, assignments, pipes and redirections."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"\s\d?>&?\s*\S+", " ", re.sub(r"^\s*\$ ", "", line))
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        command: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("|&;"):
                if command:
                    found.append(command)
                command = []
            elif command or not re.match(r"^\w+=", token):
                command.append(token)
    return found


def parse_command(tokens: list[str]) -> None:
    """Parse a `ciscribe` command line as the program would, without running it."""
    app.parse_args(tokens, exit_on_error=False, print_error=False)


def make_targets(makefile: str) -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):(?!=)", makefile, flags=re.MULTILINE))


def broken_links(page: str, folder: Path) -> list[str]:
    """Relative links of a page to files that do not exist; code is not searched."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", page))
    targets = [next(filter(None, groups)) for groups in LINK.findall(prose)]
    local = [t.split("#")[0] for t in targets if not re.match(r"^(\w+:|#|//)", t)]
    return [t for t in local if not (folder / t).exists()]


class Finder(doctest.DocTestFinder):
    """Finds examples also behind decorators (the suite wraps every function to check array shapes)."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object) if callable(object) else object)


def run_doctests(module) -> doctest.TestResults:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE, verbose=False)
    for test in Finder(exclude_empty=True).find(module, module.__name__):
        runner.run(test)
    return runner.summarize(verbose=False)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT / "src").with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def page_id(path: Path) -> str:
    return str(path.relative_to(ROOT))


def n_examples(source: str) -> int:
    """Count the examples that the docstrings of a source hold."""
    holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    parser = doctest.DocTestParser()
    return sum(len(parser.get_examples(ast.get_docstring(node) or "")) for node in ast.walk(ast.parse(source))
               if isinstance(node, holders))


@pytest.fixture
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads_as_before")
@pytest.mark.parametrize("path", EXECUTED, ids=page_id)
def test_docs__python_blocks_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = path.read_text(encoding="utf-8")
    n_python = sum(b.language == "python" and b.reason is None for b in blocks(page))
    assert run_blocks(page, str(path)) == n_python


NOT_RUN = [pytest.param(block.reason, id=f"{page_id(path)}:{block.line}") for path in EXECUTED
           for block in blocks(path.read_text(encoding="utf-8")) if block.reason is not None]


@pytest.mark.parametrize("reason", NOT_RUN)
def test_docs__block_that_is_not_run_says_why(reason):
    assert len(reason.split()) >= 2, "say in a few words why the block is not run"
    pytest.skip(f"not run: {reason}")


@pytest.mark.parametrize("path", LINKED, ids=page_id)
def test_docs__shell_commands_parse(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    lines = [command for block in blocks(path.read_text(encoding="utf-8"))
             if block.language in SHELLS and block.reason is None for command in commands(block.text)]
    ours = [command[1:] for command in lines if Path(command[0]).name == "ciscribe"]
    targets = make_targets((ROOT / "Makefile").read_text(encoding="utf-8"))
    for command in lines:
        if command[0] == "make":
            assert {word for word in command[1:] if "=" not in word} <= targets, command
    for tokens in ours:
        parse_command(tokens)


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_doctests__of_every_module_pass(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_doctests(importlib.import_module(module_name(path)))
    assert result.failed == 0
    assert result.attempted == n_examples(path.read_text(encoding="utf-8")), "an example was not found"


@pytest.mark.parametrize("path", LINKED, ids=page_id)
def test_links__lead_to_files(path):
    assert not broken_links(path.read_text(encoding="utf-8"), path.parent)


# The guards themselves, on small pages.

PAGE = """# Page
```python
x = [1]
```
text
```python
x.append(2)
assert x == [1, 2]
```
<!-- not run: needs the network -->
```python
raise SystemExit
```
1. step
   ```bash
   $ ciscribe demo --fast   # quick
   ```
"""


def test_blocks__finds_language_line_and_reason():
    assert [(b.language, b.line, b.reason) for b in blocks(PAGE)] == [
        ("python", 3, None), ("python", 7, None), ("python", 12, "needs the network"), ("bash", 16, None)]
    assert blocks(PAGE)[3].text == "$ ciscribe demo --fast   # quick\n"


def test_run_blocks__shares_a_namespace_and_skips_what_is_not_run():
    assert run_blocks(PAGE, "page.md") == 2


def test_run_blocks__fails_at_the_line_of_the_page():
    with pytest.raises(ZeroDivisionError) as caught:
        run_blocks("# Page\n\n```python\nx = 1\nx / 0\n```\n", "page.md")
    assert (caught.traceback[-1].lineno + 1, str(caught.traceback[-1].path)[-7:]) == (5, "page.md")


def test_commands__are_taken_apart():
    text = ("$ make demo\nCISCRIBE_DATA=/data ciscribe run 'a b.yaml' \\\n  --out x > log 2>&1\n# comment\n"
            "ciscribe data build a.yaml | tee log && ciscribe train RUN_DIR  # note\n")
    assert commands(text) == [
        ["make", "demo"], ["ciscribe", "run", "a b.yaml", "--out", "x"],
        ["ciscribe", "data", "build", "a.yaml"], ["tee", "log"], ["ciscribe", "train", "RUN_DIR"]]


def test_parse_command__refuses_what_the_program_would_refuse():
    parse_command(["--help"])
    with pytest.raises(Exception, match=r"(?i)unknown"):
        parse_command(["no-such-verb"])
    with pytest.raises(Exception, match=r"(?i)unknown"):
        parse_command(["demo", "--no-such-option"])


def test_make_targets__are_read():
    makefile = "BIN := x\na.b: c\ndemo: a.b  ## show\ntest-all:\n\tdemo: no\n"
    assert make_targets(makefile) == {"demo", "test-all"}


def test_broken_links__finds_only_local_files_that_are_absent(tmp_path):
    (tmp_path / "here.md").write_text("")
    page = ("[a](here.md) [b](here.md#part) [c](gone.md) [d](https://x.org) [e](#top) ![f](gone.png)\n"
            "`[g](code.md)`\n```text\n[h](code.md)\n```\n<img src=\"gone.svg\">\n[ref]: gone.txt\n")
    assert broken_links(page, tmp_path) == ["gone.md", "gone.png", "gone.svg", "gone.txt"]


def test_run_doctests__fails_on_a_wrong_example_and_finds_all(tmp_path, monkeypatch, capsys):
    source = ('"""Toy.\n\n>>> 1 + 1\n2\n"""\nimport functools\n\ndef plain(f):\n    @functools.wraps(f)\n'
              '    def inner():\n        return f()\n    return inner\n\n@plain\ndef two():\n'
              '    """Give 2.\n\n    >>> two()\n    3\n    """\n    return 2\n')
    (tmp_path / "toy_for_doctest.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    result = run_doctests(importlib.import_module("toy_for_doctest"))
    assert (result.failed, result.attempted, n_examples(source)) == (1, 2, 2)
    assert "Got:" in capsys.readouterr().out
