"""Measure elements and modalities: ``python validation/elements.py world|worm|modalities [--write]``."""

from parts import main

if __name__ == "__main__":
    main("elements", "Elements and modalities, measured", ("world", "worm", "modalities"), __doc__)
