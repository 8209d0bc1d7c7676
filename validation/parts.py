"""Pages that are measured in parts: what ``validation/<page>.py PART`` prints and ``--write`` puts on the page.

A part is a module beside this one, ``<page>_<part>.py``, whose ``page()`` measures and returns the Markdown of its
section. A page keeps the sections of parts that are not measured in this call.
"""

import argparse
import importlib
import platform
import re
from collections.abc import Sequence
from pathlib import Path

from ciscribe.provenance import provenance, write_text

HERE = Path(__file__).resolve().parent


def main(page: str, title: str, parts: Sequence[str], about: str | None = None) -> None:
    """Measure the part that the command line names; print its section, or write it in its place on the page."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--write", action="store_true", help=f"write the section of {page}.md instead of printing")
    given = parser.parse_args()
    facts, text = provenance(), importlib.import_module(f"{page}_{given.part}").page()
    text = (f"<!-- {given.part} -->\n{text.strip()}\n\nWritten by `validation/{page}.py {given.part} --write` "
            f"({facts['created']}, Python {platform.python_version()}, ciscribe {facts['version']}).\n"
            f"<!-- end {given.part} -->\n")
    if given.write:
        put(HERE / f"{page}.md", title, parts, given.part, text)
    else:
        print(text)


def put(path: Path, title: str, parts: Sequence[str], part: str, text: str) -> None:
    """Put a section in its place on a page; the others stay as they are."""
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    found = {p: m[0] for p in parts if (m := re.search(rf"<!-- {p} -->\n.*?<!-- end {p} -->\n", page, re.DOTALL))}
    found[part] = text
    write_text(path, f"# {title}\n\n" + "\n".join(found[p] for p in parts if p in found))
