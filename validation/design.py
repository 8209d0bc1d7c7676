"""Measure design: ``python validation/design.py replay|world|league|generators [--write]`` writes ``design.md``."""

from parts import main

if __name__ == "__main__":
    main("design", "Design, measured", ("replay", "world", "league", "generators"), __doc__)
