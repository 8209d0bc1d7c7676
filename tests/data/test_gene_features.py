import numpy as np
import pandas as pd
import pytest

from ciscribe.data.gene_features import GENE_FEATURES, gene_features
from ciscribe.errors import SchemaError


def table(*rows):
    genes = pd.DataFrame(rows, columns=["chrom", "start", "end", "strand"])
    genes["gene_id"] = genes["gene_name"] = [f"g{i}" for i in range(len(genes))]
    genes["tss"] = np.where(genes["strand"] == "-", genes["end"] - 1, genes["start"])
    return genes


GENES = table(("chrI", 1000, 3000, "+"), ("chrI", 3100, 4100, "+"), ("chrI", 4700, 6700, "-"),
              ("chrI", 6600, 9600, "-"), ("chrII", 500, 600, "-"))


def slow(genes, i):
    """Features of one gene by looking at every other one."""
    gene = genes.iloc[i]
    others = genes[(genes["chrom"] == gene["chrom"])].sort_values(["start", "end"])
    place = others.index.get_loc(genes.index[i])
    step = 1 if gene["strand"] == "+" else -1

    def neighbor(k):
        return others.iloc[k] if 0 <= k < len(others) else None

    def gap(a, b):
        left, right = (a, b) if a["start"] <= b["start"] else (b, a)
        return max(-50_000, min(50_000, right["start"] - left["end"]))

    out = [np.log10(gene["end"] - gene["start"])]
    for k in (place - step, place + step):
        other = neighbor(k)
        g = 50_000 if other is None else gap(gene, other)
        out += [np.sign(g) * np.log10(1 + abs(g)), 0.5 if other is None else float(other["strand"] == gene["strand"])]
    out.append(((others["start"] <= gene["tss"] + 10_000) & (others["end"] > gene["tss"] - 10_000)).sum())
    k, run, here = place - step, 0, gene
    while (other := neighbor(k)) is not None and other["strand"] == gene["strand"] and gap(here, other) <= 500:
        k, run, here = k - step, run + 1, other
    return [*out, min(run, 8)]


def test_gene_features__are_those_of_the_slow_twin():
    rng = np.random.default_rng(4)
    rows = []
    for chrom, n in (("chrI", 53), ("chrII", 29), ("chrIII", 1)):
        start = np.sort(rng.integers(0, 90_000, n))
        rows += [(chrom, int(s), int(s + rng.integers(50, 4000)), "+-"[rng.integers(2)]) for s in start]
    genes = table(*rows).sample(frac=1, random_state=1).reset_index(drop=True)
    got = gene_features(genes)
    assert list(got.columns) == list(GENE_FEATURES)
    expected = np.array([slow(genes, i) for i in range(len(genes))])
    assert np.allclose(got.to_numpy(), expected)


def test_gene_features__by_hand():
    got = gene_features(GENES)
    assert got["place_in_run"].tolist() == [0, 1, 1, 0, 0]
    assert got["upstream_same_strand"].tolist() == [0.5, 1, 1, 0.5, 0.5]
    assert got["upstream_gap"].iloc[1] == pytest.approx(np.log10(101))
    assert got["upstream_gap"].iloc[2] == pytest.approx(-np.log10(101))  # they overlap by 100 bp
    assert got["gene_length"].iloc[4] == pytest.approx(2.0)


def test_gene_features__keep_the_index():
    genes = GENES.set_axis([7, 3, 5, 11, 2])
    assert gene_features(genes).index.tolist() == [7, 3, 5, 11, 2]


def test_gene_features__refuse_a_broken_table():
    with pytest.raises(SchemaError):
        gene_features(GENES.drop(columns="strand"))
