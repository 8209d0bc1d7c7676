"""Activity by contact, computed anew on chromosome 22 of K562 and held against the published pipeline's own tables.

Needs the public data sets (CISCRIBE_DATA names their folder).
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ciscribe.intervals import region_id
from ciscribe.io.bed import read_bed, read_narrowpeak
from ciscribe.io.contacts import open_contacts
from ciscribe.io.genes import read_genes
from ciscribe.io.links import read_links
from ciscribe.links.abc import (
    activity,
    candidate_elements,
    classify,
    promoter_activity_quantile,
    score_abc,
    select_links,
)
from ciscribe.links.contact import fit_power_law, power_law, reference_power_law

DATA = Path(os.environ.get("CISCRIBE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
TOTALS = {"accessibility": 379_428, "h3k27ac": 113_284}
"""Reads of both libraries on chr22: count / RPM in the published gene list."""
THRESHOLD = 0.027
KEY = ["chrom", "start", "end"]


def inputs(data: Path = DATA) -> dict[str, pd.DataFrame]:
    """Peaks with counts, genes, elements with counts, and tables of the published run (hg38)."""
    folder = data / "human_chr22_k562" / "hg38"
    reads = read_bed(folder / "DNase_ENCFF860XAE_peak_counts.bed.gz")
    peaks = read_narrowpeak(folder / "DNase_ENCFF860XAE_macs2_peaks.narrowPeak.gz")
    count = reads.drop_duplicates(["chrom", "start", "end"]).set_index(["chrom", "start", "end"])["name"]
    peaks["count"] = count.reindex(pd.MultiIndex.from_frame(peaks[["chrom", "start", "end"]])).to_numpy(float)
    genes = read_genes(folder / "GeneList.txt.gz", columns={"chrom": "chr", "gene_id": "symbol"})
    elements = read_bed(folder / "EnhancerList.bed.gz")
    elements["class"] = elements["name"].str.split("|").str[0]
    for name, file in (("accessibility", "enhancers_DHS_ENCFF860XAE_counts.bedgraph.gz"),
                       ("h3k27ac", "enhancers_H3K27ac_ENCFF790GFL_counts.bedgraph.gz")):
        table = read_bed(folder / file)
        elements[name] = table.set_index(region_id(table))["name"].reindex(region_id(elements)).to_numpy(float)
    return {
        "peaks": peaks, "genes": genes, "elements": elements,
        "published": read_links(folder / "ABC_predictions_full_thr0.027.tsv.gz", gene="symbol"),
        "sample": pd.read_csv(folder / "abc_test_pred_df.tsv.gz", sep="\t"),
        "blacklist": read_bed(data / "human_reference" / "GRCh38_unified_blacklist.bed.gz"),
        "reference": pd.read_csv(data / "human_reference" / "EnhancersQNormRef.K562.txt", sep="\t"),
    }


def golden_abc(data: Path = DATA) -> dict[str, Any]:
    """Every number of the comparison; differences are largest absolute ones unless the name says otherwise."""
    given = inputs(data)
    return golden_tables(given) | golden_scores(given, data)


def golden_tables(given: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """What follows from the columns of the published table alone; elements and activity from peaks and counts."""
    genes, published = given["genes"], given["published"]
    out: dict[str, Any] = {"rows": len(published)}
    d = published["distance"].to_numpy(float)
    out["powerlaw_contact"] = np.abs(power_law(d) - published["powerlaw_contact"]).max()
    out["powerlaw_contact_reference"] = np.abs(reference_power_law(d) - published["powerlaw_contact_reference"]).max()
    scaled = published["hic_contact"] * reference_power_law(d) / power_law(d)
    out["hic_contact_scaled"] = np.abs(scaled - published["hic_contact_scaled"]).max()
    numerator = published["activity"] * published["contact"]
    out["numerator"] = np.abs(numerator - published["abc_numerator"]).max()
    ours = candidate_elements(given["peaks"], given["peaks"]["count"].to_numpy(), genes, blacklist=given["blacklist"])
    out["elements"], out["elements_published"] = len(ours), len(given["elements"])
    out["elements_same"] = len(ours.merge(given["elements"], on=[*KEY, "class"]))
    out["classes_differ"] = int((classify(given["elements"], genes) != given["elements"]["class"]).sum())
    elements = activity(given["elements"], totals=TOTALS, reference=given["reference"])
    both = published.merge(elements, on=KEY, suffixes=("_published", ""))
    out["activity"] = np.abs(both["activity"] - both["activity_published"]).max()
    out["promoter_activity_quantile"] = np.abs(_quantile(genes) - genes["PromoterActivityQuantile"]).max()
    return out


def _quantile(genes: pd.DataFrame) -> np.ndarray:
    return promoter_activity_quantile(genes["DHS.RPM.TSS1Kb"].to_numpy(), genes["H3K27ac.RPM.TSS1Kb"].to_numpy())


def golden_scores(given: dict[str, pd.DataFrame], data: Path = DATA) -> dict[str, Any]:
    """Scores of all pairs, from counts, gene list and Hi-C counts that are balanced here."""
    genes, published = given["genes"], given["published"]
    elements = activity(given["elements"], totals=TOTALS, reference=given["reference"])
    out: dict[str, Any] = {}
    genes = genes.assign(expression=np.nan, promoter_activity_quantile=_quantile(genes))
    contacts = open_contacts(data / "human_chr22_k562" / "hg38" / "HiC_chr22_5kb.RAWobserved.hg38.gz", chrom="chr22")
    began = time.perf_counter()
    links = score_abc(elements, genes, contacts=contacts, cell="K562_chr22")
    out["seconds"], out["pairs"] = time.perf_counter() - began, len(links)
    pair = [*KEY, "gene_id"]
    both = published.merge(links, on=pair, suffixes=("_published", ""), validate="one_to_one")
    other = both.loc[~both["is_self_promoter"]]
    out["found"], out["self_promoters_differ"] = len(both), int((both["is_self_promoter"]
                                                                 != both["is_self_promoter_published"]).sum())
    out["powerlaw_score"] = np.abs(other["powerlaw_abc"] - other["powerlaw_abc_reported"]).max()
    out["expressed_differ"] = int((both["is_expressed"] != both["is_expressed_published"]).sum())
    out["powerlaw_genes"] = tuple(sorted(both.loc[rows, "gene_name"].unique()) for rows in (
        (both["hic_contact_published"] - both["powerlaw_contact_published"]).abs() < 1e-6,
        both["contact_source"] == "powerlaw"))
    ratio = both["hic_contact"] / both["hic_contact_published"]
    out["hic_contact_ratio"] = ratio.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
    ratio = other["abc"] / other["abc_reported_published"]
    out["abc_score_ratio"] = ratio.quantile([0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
    out["abc_score_within_5_percent"] = float(((ratio - 1).abs() < 0.05).mean())
    out["abc_score_median_difference"] = float((other["abc"] - other["abc_reported_published"]).abs().median())
    for name, table in (("hic", links), ("powerlaw", score_abc(elements, genes, cell="K562_chr22"))):
        called = select_links(table, THRESHOLD, only_expressed=False)
        same = called.merge(published[pair], on=pair)
        enhancers = published.loc[~published["is_self_promoter"], pair]
        out[f"called_{name}"] = len(called)
        out[f"recovered_{name}"] = len(same)
        out[f"enhancers_called_{name}"] = int((~called["is_self_promoter"]).sum())
        out[f"enhancers_recovered_{name}"] = len(called.merge(enhancers, on=pair))
        out["enhancers_published"] = len(enhancers)
    sample = given["sample"].rename(columns={"chr": "chrom", "TargetGene": "gene_id"})
    both = sample.merge(links, on=pair, suffixes=("_published", ""))
    both = both.loc[both["contact_source"] == "hic"]
    out["sample_pairs"] = len(both)
    out["sample_contact_spearman"] = both["hic_contact"].corr(both["hic_contact_published"], method="spearman")
    ratio = both["hic_contact"] / both["hic_contact_published"]
    out["sample_within_5_percent"] = float(((ratio - 1).abs() < 0.05).mean())
    out["power_law_fitted"] = fit_power_law(contacts)
    return out


def page() -> str:
    """The section of the page."""
    r = golden_abc()
    quantiles = {name: ", ".join(f"{x:.3f}" for x in r[name]) for name in ("hic_contact_ratio", "abc_score_ratio")}
    theirs, mine = r["powerlaw_genes"]
    rows = [
        ("power-law contact", f"largest difference {r['powerlaw_contact']:.1e}"),
        ("power-law contact of the average map", f"largest difference {r['powerlaw_contact_reference']:.1e}"),
        ("Hi-C contact scaled, from the rounded one", f"largest difference {r['hic_contact_scaled']:.1e}"),
        ("numerator, from activity and scaled contact", f"largest difference {r['numerator']:.1e}"),
        ("candidate elements, from peaks and counts",
         f"{r['elements_same']:,} of {r['elements_published']:,} the same with their class ({r['elements']:,} made)"),
        ("activity, from counts", f"largest difference {r['activity']:.1e}"),
        ("promoter activity quantile, from reads", f"largest difference {r['promoter_activity_quantile']:.1e}"),
        ("own promoters; expressed genes", f"{r['self_promoters_differ']}; {r['expressed_differ']} rows differ"),
        ("power-law score, over all elements", f"largest difference {r['powerlaw_score']:.1e}"),
        ("Hi-C contact, ours / published (5, 25, 50, 75, 95 %)", quantiles["hic_contact_ratio"]),
        ("ABC score, ours / published (5, 25, 50, 75, 95 %)", quantiles["abc_score_ratio"]),
        ("ABC scores within 5 % of the published", f"{r['abc_score_within_5_percent']:.1%}"),
        ("genes that take the power law",
         f"published {len(theirs)}, ours {len(mine)}, both {len(set(theirs) & set(mine))}"),
        (f"rows recovered at {THRESHOLD} with Hi-C",
         f"{r['recovered_hic']:,} of {r['rows']:,} ({r['called_hic']:,} called)"),
        ("of them elements other than own promoters",
         f"{r['enhancers_recovered_hic']:,} of {r['enhancers_published']:,} ({r['enhancers_called_hic']:,} called)"),
        (f"the same by the power law alone at {THRESHOLD}",
         f"{r['enhancers_recovered_powerlaw']:,} of {r['enhancers_published']:,} "
         f"({r['enhancers_called_powerlaw']:,} called)"),
        ("contact of a random sample of pairs",
         f"Spearman {r['sample_contact_spearman']:.3f}, {r['sample_within_5_percent']:.1%} within 5 % "
         f"({r['sample_pairs']:,} pairs)"),
        ("power law fitted to this map", "gamma {:.3f}, scale {:.3f} (published 1.024, 5.959)".format(
            *r["power_law_fitted"])),
    ]
    table = "\n".join(f"| {a} | {b} |" for a, b in [("what", "result"), ("---", "---"), *rows])
    return f"""## Activity by contact against the published pipeline

Chromosome 22 of K562, hg38: {r['rows']:,} published predictions at a threshold of {THRESHOLD}, given to six decimals.
Above, what their own columns imply; then everything computed anew from peaks, read counts, gene list and Hi-C counts.

{table}

What differs: the Hi-C file holds counts, which we balance by iterative correction; the published values are SCALE-
normalized. For most bins both agree within 1 %; some bins have published contacts lower by one factor (up to about six)
that balancing the counts does not give. Nothing was fitted to the published scores.
"""
