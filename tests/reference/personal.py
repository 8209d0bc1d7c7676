"""Slow twins of personal genomes: strings edited one variant at a time, every person and haplotype by itself."""

import numpy as np

COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def window(chromosome, variants, tss, half, minus):
    """Letters around a TSS with variants ``(pos, ref, alt)`` written in, TSS at `half`; N off the chromosome.

    The right half is cut from the TSS on, the left half up to it, so that neither moves the other.
    """
    left, right = chromosome[:tss], chromosome[tss:]
    for pos, ref, alt in sorted(variants, reverse=True):
        if pos >= tss:
            right = right[:pos - tss] + alt + right[pos - tss + len(ref):]
        else:
            left = left[:pos] + alt + left[pos + len(ref):]
    if minus:
        left, right = right[1:].translate(COMPLEMENT)[::-1], (left + right[:1]).translate(COMPLEMENT)[::-1]
    return left.rjust(half, "N")[-half:] + right.ljust(half, "N")[:half]


def people(model, genome, variants, alleles, genes, half, strand_aware=True):
    """Predictions ``(G, P, T)``; `model` takes letters and gives a list of numbers."""
    out = []
    for gene in genes.to_dict("records"):
        row = []
        for person in range(alleles.shape[1]):
            both = []
            for haplotype in (0, 1):
                carried = [(v["pos"], v["ref"], v["alt"]) for v, a in zip(variants.to_dict("records"), alleles,
                                                                          strict=True)
                           if a[person, haplotype] and v["chrom"] == gene["chrom"]]
                letters = window(genome[gene["chrom"]], carried, gene["tss"], half,
                                 strand_aware and gene["strand"] == "-")
                both.append(model(letters))
            row.append(np.mean(both, axis=0))
        out.append(row)
    return np.array(out)
