"""Do two seeds find the same elements of the worm: ``python validation/elements.py seeds [--write]``."""

from pathlib import Path

import pandas as pd
from elements_worm import FOLDER, RUNS, benchmark, evidence, kept, of, stability


def page(folder: Path = FOLDER) -> str:
    """Markdown of the section."""
    out = benchmark(folder, "seeds", "sequence_1", ("sequence_2",), erase=False)
    return "\n".join([
        "## Stability: two seeds on the worm", "",
        f"`sequence_2` is the same training with another seed and {RUNS['sequence_2'][2]} epochs, for want of time. "
        f"{kept(folder, ['sequence_1', 'sequence_2'])}", "",
        "Jaccard index at equal base pairs of the windows of chrIV, beside that of the same masks with the genes "
        "changed (what distance from the TSS makes them share) and of chance.", "",
        stability(pd.read_parquet(out / "agreement.parquet")), "",
        "Both against the accessible sites:", "",
        evidence(of(pd.read_parquet(out / "benchmark.parquet"), "accessible sites"))])
