"""Measure design: ``python validation/design.py PART [--write]`` writes the section of a part into ``design.md``."""

from parts import main

if __name__ == "__main__":
    main("design", "Design, measured", ("replay", "world", "league", "learned", "targets", "generators"), __doc__)
