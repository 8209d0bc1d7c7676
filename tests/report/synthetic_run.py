"""Synthetic results with the shapes of a real run; `make_report` sets them into a page."""

import numpy as np
import pandas as pd

from ciscribe import report
from ciscribe.card import Card
from ciscribe.plot import Locus

WORM_STAGES = (
    "embryo, mixed stages, N2 (mean of 4 libraries)",
    "L1 larva, starved then fed",
    "L2 larva",
    "L3 larva",
    "L4 larva, mid to late",
    "young adult hermaphrodite",
)
CELLS = ("hepatocyte", "T cell", "neuron")


def interval(value, width):
    return {"value": value, "low": value - width, "high": value + width}


def make_metrics(targets=CELLS, *, ceiling=True, truncation=True, across=True):
    models = {}
    for name, base in (("seq2exp", 0.77), ("gbm_sequence_signals", 0.71), ("gbm_signals", 0.66)):
        scores = {
            t: {
                "mse": interval(0.9 - base + 0.01 * i, 0.012),
                "mae": interval(1.1 - base, 0.011),
                "pearson": interval(base + 0.011 * (i % 5), 0.013),
                "spearman": interval(base - 0.02, 0.014),
            }
            for i, t in enumerate(targets)
        }
        models[name] = {
            "per_target": scores,
            "mean": scores[targets[0]],
            "across_target": interval(base - 0.16, 0.015) if across else None,
        }
    return {
        "split": {
            "train": {"chroms": ["chrI", "chrII", "chrV", "chrX"], "n_genes": 12_409},
            "valid": {"chroms": ["chrIII"], "n_genes": 2_503},
            "test": {"chroms": ["chrIV"], "n_genes": 3_019},
        },
        "targets": list(targets),
        "main": "seq2exp",
        "models": models,
        "noise_ceiling": {"pearson": {t: 0.93 - 0.01 * (i % 3) for i, t in enumerate(targets)} | {"mean": 0.92}}
        if ceiling
        else None,
        "truncation": [
            {"window_bp": w, "pearson": 0.77 - 0.35 * 0.55**i}
            for i, w in enumerate((512, 1024, 2048, 4096, 8192, 16384, 65536, 196608))
        ]
        if truncation
        else None,
    }


def make_predictions(targets=CELLS, n=101, seed=3):
    rng = np.random.default_rng(seed)
    frames = []
    for fold, chrom in (("train", "chrI"), ("test", "chrIV")):
        level = rng.gamma(1.6, 0.7, n)
        for cell in targets:
            observed = np.maximum(0, level + rng.normal(0, 0.3, n))
            frames.append(
                pd.DataFrame(
                    {
                        "gene_id": [f"g{i}" for i in range(n)],
                        "gene_name": [f"g{i}" for i in range(n)],
                        "chrom": chrom,
                        "tss": np.arange(n),
                        "strand": "+",
                        "fold": fold,
                        "cell": cell,
                        "observed": observed,
                        "predicted": 0.2 + 0.7 * observed + rng.normal(0, 0.35, n),
                        "gbm_signals": rng.normal(1, 1, n),
                    }
                )
            )
    return pd.concat(frames, ignore_index=True)


def make_log(n=23):
    epoch = np.arange(n)
    valid = 0.28 + 0.5 * np.exp(-epoch / 5) + 0.002 * epoch
    valid[1] = np.nan
    return pd.DataFrame(
        {
            "epoch": epoch,
            "train_loss": 0.2 + 0.7 * np.exp(-epoch / 6),
            "valid_loss": valid,
            "valid_pearson": 0.78 - 0.4 * np.exp(-epoch / 4),
        }
    )


def make_benchmark():
    rows, curves, budgets = [], [], []
    for method, area in (
        ("seq2exp", 0.71),
        ("macs3", 0.49),
        ("signal_top_bins", 0.41),
        ("distance_to_tss", 0.22),
        ("random", 0.07),
    ):
        rows.append(
            {
                "method": method,
                "auprc": area,
                "auprc_full": area - 0.03,
                "precision": area + 0.08,
                "recall": 0.53,
                "f1": 0.6 * area + 0.2,
                "called_bp": 1_203_511,
                "budget_bp": 1_203_511,
            }
        )
        recall = np.linspace(0, 1, 61)
        curves.append(
            pd.DataFrame(
                {
                    "method": method,
                    "bp": recall * 2e6,
                    "recall": recall,
                    "precision": np.clip(area * 1.35 * (1 - recall**3) + 0.05, 0, 1),
                }
            )
        )
    for order, rate in (("seq2exp", 9.0), ("macs3", 4.0), ("shuffled", 1.7), ("random", 1.5)):
        for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4):
            budgets += [
                {"budget": share, "kind": "sufficiency", "order": order, "r": 1 - np.exp(-rate * share * 4)},
                {"budget": share, "kind": "necessity", "order": order, "r": np.exp(-rate * share)},
            ]
    return pd.DataFrame(rows), pd.concat(curves, ignore_index=True), pd.DataFrame(budgets)


def make_elements(n=29, chrom="chrIV", start=1_200_000, width=40_000, seed=5, gene="lin-39"):
    rng = np.random.default_rng(seed)
    left = np.sort(rng.integers(start, start + width - 700, n))
    return pd.DataFrame(
        {
            "chrom": chrom,
            "start": left,
            "end": left + rng.integers(130, 690, n),
            "gene_id": "WBGene00003024",
            "gene_name": gene,
            "cell": "L3 larva",
            "score": rng.uniform(0.3, 1, n),
            "score_sd": rng.uniform(0.01, 0.1, n),
            "effect": rng.normal(0.2, 0.3, n),
            "evidence": "mask",
        }
    )


def make_locus(
    cells=CELLS,
    *,
    start=1_200_000,
    width=40_000,
    n_genes=17,
    n_elements=9,
    truth=True,
    gene_name="lin-39",
    seed=7,
):
    rng = np.random.default_rng(seed)
    edges = np.arange(start, start + width + 1, 128)
    n = len(edges) - 1
    elements = make_elements(n_elements, start=start, width=width, seed=seed)
    middle = (edges[:-1] + edges[1:]) / 2
    bump = sum(
        (np.exp(-0.5 * ((middle - (s + e) / 2) / 300) ** 2) for s, e in elements[["start", "end"]].to_numpy()),
        np.zeros(n),
    )
    signals = {f"ATAC, {c}": (edges, rng.gamma(1, 0.4, n) + 9 * bump * rng.uniform(0.2, 1)) for c in cells}
    left = np.sort(rng.integers(start - 1500, start + width - 400, n_genes))
    right = left + rng.integers(300, 7000, n_genes)
    strand = rng.choice(["+", "-"], n_genes)
    genes = pd.DataFrame(
        {
            "chrom": "chrIV",
            "start": left,
            "end": right,
            "strand": strand,
            "gene_id": [f"WBGene{i:08d}" for i in range(n_genes)],
            "gene_name": [f"F25B{i}.{i % 7}" for i in range(n_genes)],
        }
    )
    i = n_genes // 2
    genes.loc[i, ["gene_id", "gene_name"]] = ["WBGene00003024", gene_name]
    genes["tss"] = np.where(genes["strand"] == "+", genes["start"], genes["end"] - 1)
    known = pd.DataFrame({"chrom": "chrIV", "start": elements["start"][::2] - 90, "end": elements["end"][::2] + 60})
    known["name"] = [("enhancer", "promoter", "decoy")[j % 3] for j in range(len(known))]
    return Locus(
        chrom="chrIV",
        start=start,
        end=start + width,
        gene_id="WBGene00003024",
        gene_name=gene_name,
        tss=int(genes["tss"][i]),
        strand=str(genes["strand"][i]),
        signals=signals,
        mask_edges=edges,
        mask_mean=np.clip(0.04 + 0.9 * bump, 0, 1),
        mask_sd=np.full(n, 0.05),
        elements=elements,
        genes=genes,
        truth=known if truth else None,
        truth_label="true elements",
        observed={c: 1.1 + 0.3 * j for j, c in enumerate(cells)},
        predicted={c: 1.2 + 0.2 * j for j, c in enumerate(cells)},
    )


def make_cards():
    return [
        Card(
            "seq2exp",
            "model",
            "Learns which stretches of DNA matter for a gene while it predicts its expression.",
            "Su et al., ICLR 2025, arXiv:2502.13991",
            differences=("Bins of 128 bp.", "Signals are calibrated."),
            input_length=196_608,
            resolution=128,
            parameters=1_203_457,
        ),
        Card(
            "gbm_signals",
            "baseline",
            "Gradient boosted trees on binned signals.",
            "Ke et al., NeurIPS 2017; Friedman 2001, doi:10.1214/aos/1013203451",
        ),
        Card(
            "macs3",
            "elements",
            "Calls peaks where a signal stands out of its surroundings.",
            "Zhang et al., Genome Biology 2008, doi:10.1186/gb-2008-9-9-r137",
        ),
    ]


PROVENANCE = {
    "program": "ciscribe",
    "version": "0.1.0",
    "python": "3.12.4",
    "packages": {"numpy": "2.4.6", "pandas": "2.3.3", "torch": "2.13.0", "lightning": "2.6.6"},
    "command": "ciscribe run configs/worm.yaml",
    "created": "2025-01-02T03:04:05+00:00",
    "seed": 3,
    "inputs": {"genome": "sha256:" + "ab" * 32, "signals": "sha256:" + "cd" * 32},
    "device": None,
}


def make_report(
    path, targets=CELLS, *, locus_list=None, element_table=None, title="seq2exp on C. elegans", n=101, **changes
):
    metrics = make_metrics(targets)
    table, curves, budgets = make_benchmark()
    parts = {
        "data": report.data_section(metrics),
        "metrics": report.metrics_section(metrics),
        "accuracy": report.accuracy_section(make_predictions(targets, n), units="log10(TPM + 1)"),
        "loci": report.loci_section([make_locus(targets)] if locus_list is None else locus_list),
        "elements": report.elements_section(make_elements() if element_table is None else element_table),
        "benchmark": report.benchmark_section(table, curves, budgets),
        "truncation": report.truncation_section(metrics),
        "training": report.training_section(make_log()),
    } | changes
    report.build_report(
        path,
        title=title,
        subtitle="Expression of 17,931 genes from sequence and ATAC signals, ±98 kb around the TSS",
        summary=[
            ("Correlation on test genes", "0.771", "Pearson r, mean over targets (95 %: 0.758–0.784)"),
            ("Above the best baseline", "+0.061", "GBM, sequence + signals reaches 0.710"),
            ("Across targets", "0.610", "correlation within each gene"),
            ("Elements called", "21,407", "for 3,019 test genes; AUPRC 0.71"),
        ],
        sections=list(parts.values()),
        cards=make_cards(),
        provenance=PROVENANCE,
    )
    return path
