"""Slow twins of variants: strings that are cut and joined, one at a time."""

PAIR = str.maketrans("ACGTN", "TGCAN")


def bases(sequence, start, end):
    """The letters from start to end; N off the sequence."""
    return "".join(sequence[i] if 0 <= i < len(sequence) else "N" for i in range(start, end))


def edited(sequence, pos, ref, alt):
    """The sequence with one allele exchanged."""
    if sequence[pos:pos + len(ref)] != ref:
        raise ValueError(f"{ref} is not at {pos}")
    return sequence[:pos] + alt + sequence[pos + len(ref):]


def windows(sequence, pos, ref, alt, length, anchor, start=None):
    """Reference and alternative window; with the right flank in place the other one begins later or earlier."""
    if start is None:
        start = pos + (len(ref) - 1) // 2 - length // 2
    if anchor == "center":
        anchor = "left" if pos >= start + length // 2 else "right"
    first = start if anchor == "left" else start + len(alt) - len(ref)
    return bases(sequence, start, start + length), bases(edited(sequence, pos, ref, alt), first, first + length)


def haplotype(sequence, variants):
    """All variants at once, the last first so that no position moves; and where each base of the sequence has gone."""
    letters = [(base, i) for i, base in enumerate(sequence)]
    for pos, ref, alt in sorted(variants, reverse=True):
        old = letters[pos:pos + len(ref)]
        if "".join(base for base, _ in old) != ref:
            raise ValueError(f"{ref} is not at {pos}")
        letters[pos:pos + len(ref)] = [(base, old[k][1] if k < len(old) else None) for k, base in enumerate(alt)]
    return "".join(base for base, _ in letters), {i: at for at, (_, i) in enumerate(letters) if i is not None}


def reverse_complement(sequence):
    return sequence.translate(PAIR)[::-1]
