"""The report of a run: what its folder holds, put together as sections."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ciscribe.card import Card
from ciscribe.config import RunConfig
from ciscribe.data.windows import WindowStore
from ciscribe.elements import benchmark as element_benchmark
from ciscribe.elements import call, peaks
from ciscribe.interpret.cards import CARDS as INTERPRETATION
from ciscribe.io.bed import read_bed
from ciscribe.io.chroms import reconcile
from ciscribe.models import registry
from ciscribe.plot.tracks import Locus
from ciscribe.provenance import checksum
from ciscribe.report import sections as parts
from ciscribe.report.build import build_report
from ciscribe.report.explain import explain_sections
from ciscribe.report.explain_files import read_explanation
from ciscribe.report.markup import number_text
from ciscribe.train.baselines import CARDS

UNITS = {"log10p1": "log10(TPM + 1)", "log2p1": "log2(TPM + 1)", "none": "expression"}


def write_run_report(folder: Path, config: RunConfig, store: WindowStore) -> None:
    """Write ``report.html`` of a run folder from the files that its steps left there."""
    metrics = json.loads((folder / "metrics.json").read_text())
    predictions = pd.read_parquet(folder / "predictions.parquet")
    elements = pd.read_parquet(folder / "elements.parquet")
    tables = {
        n: pd.read_parquet(folder / f"{n}.parquet") if (folder / f"{n}.parquet").exists() else None
        for n in ("benchmark", "benchmark_curves", "benchmark_links", "sufficiency_necessity")
    }
    main = config.model.name
    explained, methods = explanation(folder)
    build_report(
        folder / "report.html",
        title=config.report.title or config.name,
        subtitle=f"{main} on {len(store):,} genes, windows of {store.spec.length:,} bp at {store.spec.resolution} bp, "
        f"{len(store.track_names)} signal tracks, {len(store.target_names)} targets",
        summary=_tiles(metrics, elements, tables["benchmark"], main, predictions),
        sections=[
            parts.data_section(metrics),
            parts.metrics_section(metrics),
            parts.accuracy_section(predictions, units=UNITS[config.data.expression.transform]),
            parts.loci_section(_loci(folder, config, store, elements, predictions)),
            parts.elements_section(elements if len(elements) else None),
            parts.benchmark_section(
                tables["benchmark"],
                tables["benchmark_curves"],
                tables["sufficiency_necessity"],
                links=tables["benchmark_links"],
                main=main,
            ),
            parts.truncation_section(metrics),
            *explained,
            parts.training_section(pd.read_csv(folder / "log.csv")),
        ],
        cards=[*_cards(metrics, main, tables["benchmark"]), *methods],
        provenance=json.loads((folder / "provenance.json").read_text()),
    )


def explanation(folder: Path) -> tuple[list[parts.Section | None], list[Card]]:
    """Sections of the explanation of a run and cards of its methods; none where its model was trained anew since."""
    record = folder / "explain" / "provenance.json"
    state = json.loads(record.read_text()) if record.is_file() else {}
    if "model" in state and state["model"] != checksum(folder / "model" / "model.safetensors"):
        return [], []
    return explain_sections(read_explanation(folder / "explain")), explanation_cards(state)


def explanation_cards(state: Mapping[str, Any]) -> list[Card]:
    """Cards of the methods that the ``provenance.json`` of an explanation names."""
    used = {name for part in state.values() if isinstance(part, Mapping) for name in part.get("methods", ())}
    return [card for card in INTERPRETATION if card.name in used]


def _tiles(
    metrics: dict,
    elements: pd.DataFrame,
    benchmark: pd.DataFrame | None,
    main: str,
    predictions: pd.DataFrame,
) -> list[tuple[str, str, str]]:
    scores = metrics["models"][main]
    mean = scores["mean"]["pearson"]
    rivals = {n: m["mean"]["pearson"]["value"] for n, m in metrics["models"].items() if n != main}
    rivals = {n: r for n, r in rivals.items() if r is not None}  # a correlation of something constant is undefined
    best = max(rivals, key=lambda n: rivals[n]) if rivals else None
    tiles = [
        (
            "Pearson r, test genes",
            number_text(mean["value"]),
            f"95 % interval {number_text(mean['low'])} to {number_text(mean['high'])}, mean over targets",
        )
    ]
    if best:
        tiles.append(("Best baseline", f"{rivals[best]:.3f}", f"{best.replace('_', ' ')}, same split"))
    if metrics["noise_ceiling"] and mean["value"] is not None and metrics["noise_ceiling"]["mean"]:
        ceiling = metrics["noise_ceiling"]["mean"]
        tiles.append(
            (
                "Of the noise ceiling",
                f"{mean['value'] / ceiling:.0%}",
                f"a perfect model reaches r {ceiling:.3f}",
            )
        )
    if scores["across_target"]:
        tiles.append(
            (
                "Across targets",
                number_text(scores["across_target"]["value"]),
                "r of the differences within a gene",
            )
        )
    calls = elements.drop_duplicates(["chrom", "start", "end", "gene_id"])
    tiles.append(
        (
            "Elements called",
            f"{len(calls):,}",
            f"for {calls['gene_id'].nunique():,} genes",
        )
    )
    if benchmark is not None:
        row = dict(zip(benchmark["method"], benchmark["auprc"], strict=True))
        peaks_best = max((v for m, v in row.items() if m.startswith("peaks")), default=np.nan)
        tiles.append(("Elements AUPRC", f"{row[main]:.3f}", f"best peak calls {peaks_best:.3f}, equal base pairs"))
    return tiles


def _cards(metrics: dict, main: str, benchmark: pd.DataFrame | None) -> list[Card]:
    cards = [registry.card(main), *(CARDS[n] for n in metrics["models"] if n in CARDS), call.CARD]
    if benchmark is not None:
        cards += [peaks.LOCAL_CARD, element_benchmark.CARD]
    return cards


def _loci(
    folder: Path, config: RunConfig, store: WindowStore, elements: pd.DataFrame, predictions: pd.DataFrame
) -> list[Locus]:
    """Loci named by the configuration, then the genes with the largest measured effects away from the TSS."""
    if not (folder / "mask.npz").exists():  # a model without a mask
        return []
    with np.load(folder / "mask.npz") as saved:
        rows, mean, sd = saved["rows"], saved["mean"].astype(np.float32), saved["sd"].astype(np.float32)
    ids = store.genes["gene_id"].to_numpy()[rows]
    names = store.genes["gene_name"].to_numpy()[rows]
    wanted = [i for g in config.report.genes for i in np.flatnonzero((ids == g) | (names == g))[:1]]
    elements = elements.assign(size=elements["effect"].abs().fillna(0))
    # a gene is worth showing when its expression is predicted well and its elements matter
    predictions = predictions.assign(error=(predictions["observed"] - predictions["predicted"]).abs())
    error = predictions.groupby("gene_id")["error"].mean().to_dict()
    worth = {g: s - error.get(g, np.inf) for g, s in elements.groupby("gene_id")["size"].sum().to_dict().items()}
    place = {g: i for i, g in enumerate(ids)}
    wanted += [place[g] for g in sorted(worth, key=lambda g: -worth[g]) if g in place]
    wanted = list(dict.fromkeys(wanted))[: max(config.report.n_loci, len(config.report.genes))]
    truth, label = _truth(config, store)
    loci = []
    windows = store.windows()
    for i in wanted:
        row = int(rows[i])
        gene, window = store.genes.iloc[row], windows.iloc[row]
        start, end = int(window["start"]), int(window["end"])
        _, flip = store.starts(np.array([row]))
        order = slice(None, None, -1) if flip[0] else slice(None)
        edges = np.arange(start, end + 1, store.spec.resolution)
        raw = store.read_signals([row], raw=True)[0][:, order]
        near = None if truth is None else _overlapping(truth, gene["chrom"], start, end)
        if near is not None and "gene_id" in near:
            near = near.loc[near["gene_id"] == gene["gene_id"]]
        mine = elements.loc[elements["gene_id"] == gene["gene_id"]].sort_values("size", ascending=False, kind="stable")
        mine = mine.drop_duplicates(["start", "end"]).sort_values(["start", "end"])
        values = predictions[predictions["gene_id"] == gene["gene_id"]]
        loci.append(
            Locus(
                chrom=gene["chrom"],
                start=max(start, 0),
                end=end,
                gene_id=gene["gene_id"],
                gene_name=gene["gene_name"],
                tss=int(gene["tss"]),
                strand=gene["strand"],
                signals={t: (edges, raw[k]) for k, t in enumerate(store.track_names[: len(raw)])},
                mask_edges=edges,
                mask_mean=mean[i][order],
                mask_sd=sd[i][order],
                elements=mine,
                genes=_overlapping(store.genes, gene["chrom"], start, end),
                truth=near,
                truth_label=label,
                observed=dict(zip(values["cell"], values["observed"], strict=True)),
                predicted=dict(zip(values["cell"], values["predicted"], strict=True)),
            )
        )
    return loci


def _overlapping(table: pd.DataFrame, chrom: str, start: int, end: int) -> pd.DataFrame:
    return table.loc[(table["chrom"] == chrom) & (table["start"] < end) & (table["end"] > start)]


def _truth(config: RunConfig, store: WindowStore) -> tuple[pd.DataFrame | None, str]:
    root = Path(config.data.root)
    if config.data.truth:
        links = pd.read_csv(root / config.data.truth / "links.tsv", sep="\t")
        links = links.loc[links["label"] == 1]
        return links.drop_duplicates(["chrom", "start", "end", "gene_id"]), "true elements"
    if config.data.annotation:
        table = read_bed(root / config.data.annotation)
        table = reconcile(table["chrom"].unique(), store.meta["chroms"], "annotation").rename(table)
        return table.loc[:, ["chrom", "start", "end"]], "annotation"
    return None, ""
