"""Sites of the young adult from the ATAC of the embryo: ``python validation/elements.py stage [--write]``."""

from pathlib import Path

import pandas as pd
from elements_worm import FOLDER, HEIGHT, N_ERASED, RUNS, benchmark, evidence, kept, of

FINDINGS = """The first table is mostly about accessibility: sites of the young adult are a little open in the
embryo, and a mask that reads the embryo finds them. The second is the fair question, and the answer is weak:
the mask says nothing of stages (below chance: it prefers what the embryo has), the stage-specific effect of
erasing reaches about one and a half times chance with an interval that begins near 1, with or without the
embryo's ATAC. There are few such sites in 300 windows."""


def page(folder: Path = FOLDER) -> str:
    """Markdown of the section."""
    out = benchmark(folder, "stage", "atac_emb", ("sequence_1",), n=N_ERASED, target="YA", stage=HEIGHT.format("ya"),
                    against=HEIGHT.format("emb"))
    table = pd.read_parquet(out / "benchmark.parquet")
    only = f"sites of {HEIGHT.format('ya')} only"
    return "\n".join([
        "## Sites of the young adult, from the ATAC of the embryo", "",
        f"`atac_emb` reads the ATAC of the embryo in the window beside the sequence ({RUNS['atac_emb'][2]} epochs), "
        f"and nothing of the young adult. {kept(folder, ['atac_emb'])} Sites that are 4 times as high in the young "
        f"adult as in the embryo are closed in what it reads. {N_ERASED} genes of chrIV.", "",
        evidence(of(table, only)), "",
        "Among the bases of all accessible sites: which of them are open in the young adult and not in the embryo? "
        "`effect on YA, over the others` is the drop of the prediction for the young adult minus the mean of the other "
        "stages.", "", evidence(of(table, f"{only}, among all sites")), "",
        FINDINGS, "", "Accessible sites of any stage, an easy test for a mask that sees the embryo's:", "",
        evidence(of(table, "accessible sites"))])
