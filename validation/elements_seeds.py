"""Do other seeds and folds find the same elements of the worm: ``python validation/elements.py seeds [--write]``.

Reads the models that ``python validation/compare.py worm`` left in ``runs/compare_worm``, and fits none.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy import ndarray

from ciscribe.data.windows import WindowStore
from ciscribe.elements.bins import Bins, of_another_gene
from ciscribe.elements.truth import agreement
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.train.evaluate import model_inputs
from ciscribe.workflow.compare import Compare, Fit

HERE = Path(__file__).resolve().parent
FOLDER, FOLD, MODELS, SIZE = HERE.parent / "runs" / "compare_worm", "chrIV", ("beacon", "seq2exp soft"), 128


def markdown(header: list[str], rows: Iterable[list[str]]) -> str:
    """Table, numbers to the right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join(lines + ["| " + " | ".join(r) + " |" for r in rows])


def mask(compare: Compare, fit: Fit, store: WindowStore, rows: ndarray) -> ndarray:
    """Mean mask of genes, ``(G, bins)``, by the model of a fit."""
    oracle = Oracle(registry.load(compare.folder / fit.folder / "model")[0])
    parts = []
    for i in range(0, len(rows), SIZE):
        batch = store.batch(rows[i:i + SIZE])
        mean = oracle.posterior(batch.codes, model_inputs(batch)["S"], batch_size=SIZE).mean
        parts.append((mean * batch.keep).numpy())
    return np.concatenate(parts)


def compared(compare: Compare, label: str) -> list[list[str]]:
    """Rows of the table: pairs of seeds on their own test chromosome, then pairs of folds."""
    store = compare.examples(label, FOLD)
    if not isinstance(store, WindowStore):
        raise TypeError(f"{label} reads candidates, not windows")
    rows = store.rows("test")
    starts, flip = store.starts(rows)
    genes = store.genes.iloc[rows]
    bins = Bins(starts, genes["chrom"].tolist(), genes["gene_id"].tolist(), genes["tss"].to_numpy(),
                resolution=store.spec.resolution, n_bins=store.spec.n_bins, strands=np.where(flip, "-", "+").tolist(),
                chrom_sizes=dict(zip(store.meta["chroms"], store.meta["sizes"], strict=True)))
    done = [f for f in compare.fits() if f.model == label and compare.is_done(f)]
    groups = {"seeds": [f for f in done if f.fold == FOLD], "folds": [f for f in done if f.seed == compare.config.seed]}
    found, text = {}, []
    for what, fits in groups.items():
        if len(fits) < 2:
            text.append([f"{label}, {what}: {len(fits)} finished", "–", "–", "–", "–", "–"])
            continue
        for f in fits:
            found[f] = found[f] if f in found else mask(compare, f, store, rows)
        tables = [agreement(bins, {f"{f.fold}_{f.seed}": bins.pool(shown(found[f], i)) for i, f in enumerate(fits)})
                  for shown in (lambda m, i: m, lambda m, i: of_another_gene(m, i))]
        for budget, of in tables[0].assign(other=tables[1]["jaccard"]).groupby("budget"):
            low, mean, high = (f"{v:.3f}" for v in (of["jaccard"].min(), of["jaccard"].mean(), of["jaccard"].max()))
            text.append([f"{label}, {len(fits)} {what}", f"{budget:.0%}", mean, f"{low}–{high}",
                         f"{of['other'].mean():.3f}", f"{of['chance'].mean():.3f}"])
    return text


def page() -> str:
    """Markdown of the section."""
    compare = Compare.from_config(HERE.parent / "configs" / "compare_worm.yaml", FOLDER, tell=lambda line: None)
    rows = [row for label in MODELS for row in compared(compare, label)]
    return "\n".join([
        "## Stability: seeds and folds on the worm", "",
        "Models of [the comparison](compare.md), which read sequence and ATAC. Jaccard index of the base pairs of the "
        f"windows of {FOLD} with the highest masks, mean and range over pairs; beside it the same when every model's "
        "masks are those of other genes (what distance from the TSS makes them share), and chance. Seeds: trained "
        f"without {FOLD}. Folds: one model without {FOLD}, the others trained on it, so they saw expression there, "
        "which is what differs.", "",
        markdown(["models", "base pairs", "Jaccard", "range", "genes changed", "chance"], rows)])
