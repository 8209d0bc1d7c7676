"""Windows cut base by base in plain Python, as slow and as obvious as it gets.

`genome` maps chromosomes to strings, `signal` maps them to lists with one number a base. Position `half` of a
window that is read 5'→3' is the TSS; a shift moves the window to the right on the chromosome.
"""

import math

PAIR = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}


def positions(tss, reverse, half, shift=0):
    """Base that each place of the window shows; may lie off the chromosome."""
    if reverse:
        return [tss + shift + half - i for i in range(2 * half)]
    return [tss + shift - half + i for i in range(2 * half)]


def window_codes(genome, gene, half, *, strand_aware=True, shift=0):
    reverse = strand_aware and gene["strand"] == "-"
    sequence = genome[gene["chrom"]]
    out = []
    for p in positions(gene["tss"], reverse, half, shift):
        letter = sequence[p].upper() if 0 <= p < len(sequence) else "N"
        if letter not in PAIR:
            letter = "N"
        out.append("ACGTN".index(PAIR[letter] if reverse else letter))
    return out


def window_signal(signal, gene, half, resolution, *, strand_aware=True, shift=0):
    reverse = strand_aware and gene["strand"] == "-"
    values = signal[gene["chrom"]]
    base = [values[p] if 0 <= p < len(values) else 0.0 for p in positions(gene["tss"], reverse, half, shift)]
    return [sum(base[i:i + resolution]) / resolution for i in range(0, 2 * half, resolution)]


def window_contact(gene, half, resolution, *, d0, gamma, scale, strand_aware=True, shift=0):
    reverse = strand_aware and gene["strand"] == "-"
    at = half + (shift if reverse else -shift)  # place of the TSS in the window
    out = []
    for i in range(2 * half // resolution):
        d = abs(i * resolution + resolution / 2 - at)
        out.append(math.log10(scale * (1 + d / d0) ** -gamma + 1))
    return out


def window_gene_contact(contact, gene, half, resolution, *, strand_aware=True, shift=0):
    """`contact` maps genes to base → contact with their TSS; what it does not have is 0."""
    reverse = strand_aware and gene["strand"] == "-"
    base = [contact[gene["gene_id"]].get(p, 0.0) for p in positions(gene["tss"], reverse, half, shift)]
    return [math.log10(sum(base[i:i + resolution]) / resolution + 1) for i in range(0, 2 * half, resolution)]


def window_keep(covered, gene, half, resolution, *, strand_aware=True, shift=0):
    """`covered` has 1 on blacklisted bases."""
    share = window_signal(covered, gene, half, resolution, strand_aware=strand_aware, shift=shift)
    return [0.0 if s > 0.5 else 1.0 for s in share]
