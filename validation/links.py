"""Measure links: ``python validation/links.py abc|crispri|world [--write]`` writes ``links.md``."""

from parts import main

if __name__ == "__main__":
    main("links", "Links of elements and genes, measured", ("abc", "crispri", "world"), __doc__)
