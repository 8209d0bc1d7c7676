"""Sections of links and variants: they say what the tables hold, escape it, and leave out what is not there."""

import numpy as np
import pandas as pd

from ciscribe.report.links import (
    LinkedLocus,
    link_benchmark_section,
    links_section,
    loci_section,
    score_columns,
    variant_benchmark_section,
    variants_section,
)

LINKS = pd.DataFrame({"chrom": "chr22", "start": [100, 2_000, 30_000], "end": [600, 2_500, 30_500],
                      "gene_id": ["g1", "g1", "g2"], "cell": "K562", "distance": [350, 1_750, 900],
                      "score": [0.9, 0.01, 0.2], "motifs": ["GATA1, TAL1", "", "SP1"]})
GENES = pd.DataFrame({"chrom": "chr22", "start": [700], "end": [5_000], "strand": ["+"], "gene_name": ["HBG1"],
                      "gene_id": ["g1"], "tss": [700]})
EFFECTS = pd.DataFrame({"chrom": "chr22", "pos": [150, 2_100], "ref": "A", "alt": ["C", "T"], "name": ["rs1", "rs2"],
                        "track": "K562", "gene_id": ["g1", "g1"], "diff": [0.1, -0.7], "diff_p": [0.5, 0.001]})


def test_links_are_counted_from_the_threshold_and_ranked():
    section = links_section(LINKS, threshold=0.05, names={"g1": "HBG1"})
    assert section is not None
    assert "2 of 3 candidate links reach the score 0.05, to 2 genes" in section.lead
    assert "GATA1, TAL1" in section.html
    assert "HBG1" in section.html
    assert section.html.index("100–600") < section.html.index("30,000–30,500")
    assert "2,000–2,500" not in section.html
    assert links_section(None) is None
    assert links_section(LINKS.head(0)) is None


def test_names_from_files_are_escaped():
    section = links_section(LINKS.assign(gene_id="<script>"))
    assert section is not None
    assert "<script>" not in section.html


def test_a_locus_shows_links_tests_and_variants():
    locus = LinkedLocus("chr22", 0, 40_000, "g1", "HBG1", 700, LINKS.head(2).assign(label=[True, None]), GENES,
                        elements=LINKS, tested=pd.DataFrame({"start": [100], "end": [600], "label": [True]}),
                        variants=EFFECTS)
    section = loci_section([locus])
    assert section is not None
    for word in ("candidate elements", "CRISPRi: regulated", "CRISPRi: no effect", "variants", "HBG1"):
        assert word in section.html
    assert "Orange" in section.lead
    plain = loci_section([LinkedLocus("chr22", 0, 40_000, "g1", "HBG1", 700, LINKS.head(2), GENES)])
    assert plain is not None
    assert "CRISPRi" not in plain.html
    assert loci_section([]) is None


def test_the_benchmark_ranks_methods_and_says_what_chance_is():
    table = pd.DataFrame({"method": ["distance", "abc", "within_100kb", "nearest_tss"],
                          "auprc": [0.4, 0.6, np.nan, np.nan], "average_precision": [0.41, 0.61, 0.2, 0.3],
                          "precision_at_recall": [0.3, 0.5, 0.2, np.nan], "low": [0.35, 0.5, np.nan, np.nan],
                          "high": [0.45, 0.7, np.nan, np.nan]})
    curves = pd.DataFrame({"method": ["distance", "distance", "abc", "abc"], "precision": [1, 0.3, 1, 0.5],
                           "recall": [0.1, 1, 0.2, 1]})
    by_distance = pd.DataFrame({"method": ["distance", "abc"] * 2, "bin": ["0–20 kb"] * 2 + ["20–100 kb"] * 2,
                                "auprc": [0.5, 0.7, 0.2, np.nan], "n": 100, "n_positive": 7})
    section = link_benchmark_section(table, curves, by_distance=by_distance, n_pairs=1_000, n_positive=50,
                                     reliability=pd.DataFrame({"predicted": [0.1], "observed": [0.2], "n": [10]}),
                                     cautions=["abc <has> no chr1"])
    assert section is not None
    assert section.html.index(">abc<") < section.html.index(">distance<")
    assert section.html.index(">nearest TSS<") < section.html.index(">within 100 kb<")  # a yes or no has no area
    assert section.html.index("Caution:</strong> abc &lt;has&gt; no chr1.") < section.html.index("<table>")
    assert "guesses reaches 0.050" in section.lead
    assert "0–20 kb (7 of 100)" in section.html
    assert "predicted probability" in section.html
    assert link_benchmark_section(None) is None


def test_variants_are_ranked_by_size_and_counted_from_one():
    motifs = EFFECTS[["chrom", "pos", "ref", "alt"]].assign(motif=["GATA1", "TAL1"], d_pwm=[0.0, -5.25])
    section = variants_section(EFFECTS, motifs)
    assert section is not None
    assert section.html.index("chr22:2,101 A&gt;T") < section.html.index("chr22:151 A&gt;C")
    assert "TAL1 −5.2 bits" in section.html
    assert "GATA1" not in section.html  # a motif that does not change
    assert score_columns(EFFECTS) == ["diff", "diff_p"]
    assert variants_section(EFFECTS.drop(columns=["diff", "diff_p"])) is None


def test_measured_effects_show_every_method():
    each = pd.DataFrame({"experiment": ["HBB", "HBB"], "n": 71, "method": ["pwm", "cnn"], "spearman": [-0.11, 0.37]})
    section = variant_benchmark_section(pd.DataFrame({"method": ["pwm", "cnn"], "value": [0.15, 0.3]}),
                                        measure="Mean over experiments.", xlabel="Spearman ρ", experiments=each)
    assert section is not None
    assert section.html.index(">cnn<") < section.html.index(">pwm<")
    assert section.html.index(">HBB<") < section.html.index(">71<") < section.html.index(">0.370<")
    assert section.html.index(">0.370<") < section.html.index(">−0.110<")
