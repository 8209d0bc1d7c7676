"""Measure elements and modalities: ``python validation/elements.py PART [--write]``."""

from parts import main

if __name__ == "__main__":
    main("elements", "Elements and modalities, measured", ("worm", "seeds", "stage", "world", "modalities"), __doc__)
