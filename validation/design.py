"""Measure design: ``python validation/design.py replay|world|league|constraints|generators [--write]``.

Prints, or writes, a part of ``design.md``. Each part is a module beside this one, ``design_<part>.py``, whose
``page()`` returns the Markdown of its section. The page keeps the sections of parts that are not measured in this call.
"""

import argparse
import importlib
import platform
import re
from pathlib import Path

from ciscribe.provenance import provenance, write_text

HERE = Path(__file__).resolve().parent
PAGE = HERE / "design.md"
PARTS = ("replay", "world", "league", "constraints", "generators")


def section(part: str) -> str:
    """Measure one part; a heading, what it ran on, and its text."""
    facts = provenance()
    text = importlib.import_module(f"design_{part}").page()
    return (f"<!-- {part} -->\n{text.strip()}\n\nWritten by `validation/design.py {part} --write` ({facts['created']}, "
            f"Python {platform.python_version()}, ciscribe {facts['version']}).\n<!-- end {part} -->\n")


def write(part: str, text: str) -> None:
    """Put a section in its place on the page, others stay."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    found = {p: m[0] for p in PARTS
             if (m := re.search(rf"<!-- {p} -->\n.*?<!-- end {p} -->\n", page, flags=re.DOTALL))}
    found[part] = text
    write_text(PAGE, "# Design, measured\n\n" + "\n".join(found[p] for p in PARTS if p in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[p for p in PARTS if (HERE / f"design_{p}.py").exists()])
    parser.add_argument("--write", action="store_true", help=f"write the section of {PAGE.name} instead of printing")
    given = parser.parse_args()
    text = section(given.part)
    if given.write:
        write(given.part, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
