"""Brute force twin of the design constraints: every sequence is written out and every rule read as its words say."""

from itertools import product

import numpy as np

LETTERS = {"A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
           "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT"}
OTHER = {"A": "T", "C": "G", "G": "C", "T": "A"}


def everything(length):
    return ["".join(bases) for bases in product("ACGT", repeat=length)]


def turned(sequence):
    return "".join(OTHER[base] for base in reversed(sequence))


def is_at(word, sequence, i):
    piece = sequence[i:i + len(word)]
    return len(piece) == len(word) and all(base in LETTERS[letter] for base, letter in zip(piece, word, strict=True))


def has(word, sequence):
    return any(is_at(word, sequence, i) for i in range(len(sequence)))


def breaks_alone(rule, full):
    """Whether a rule that reads the flanks too is broken by this DNA."""
    name = type(rule).__name__
    if name == "Avoid":
        return any(has(word, full) or (rule.both_strands and has(word, turned(full))) for word in rule.words)
    if name == "Homopolymer":
        return any(base * (rule.most + 1) in full for base in "ACGT")
    if name == "Repeats":
        words = [full[i:i + rule.length] for i in range(len(full) - rule.length + 1)]
        return any(word == other or (rule.both_strands and word == turned(other))
                   for i, word in enumerate(words) for other in words[:i])
    return False


def keeps(rule, sequence, flanks, start):
    name, length = type(rule).__name__, len(sequence)
    if name in ("Avoid", "Homopolymer", "Repeats"):
        return not breaks_alone(rule, flanks[0] + sequence + flanks[1])
    if name == "GC":
        width = min(rule.window or length, length)
        shares = [sum(base in "GC" for base in sequence[i:i + width]) / width for i in range(length - width + 1)]
        return all(rule.low - 1e-9 <= share <= rule.high + 1e-9 for share in shares)
    changed = {i for i in range(length) if start is not None and sequence[i] != start[i]}
    if name == "MaxEdits":
        return len(changed) <= rule.k
    if name == "EditScope":
        return changed <= set(rule.mask)
    if not isinstance(rule.what, str):
        return not changed & set(rule.what)
    if rule.at is not None:
        return is_at(rule.what, sequence, rule.at)
    for i in range(length):
        if is_at(rule.what, start, i) and not is_at(rule.what, sequence, i):
            return False
        if is_at(rule.what, turned(start), i) and not is_at(rule.what, turned(sequence), i):
            return False
    return True


def allowed(sequence, rules, flanks, start=None):
    return all(keeps(rule, sequence, flanks, start) for rule in rules)


def moves(sequence, is_allowed):
    """Substitutions ``(4, L)`` whose outcome is allowed; the base that stands there is none."""
    legal = np.zeros((4, len(sequence)), dtype=bool)
    for i, base in product(range(len(sequence)), range(4)):
        changed = sequence[:i] + "ACGT"[base] + sequence[i + 1:]
        legal[base, i] = changed != sequence and is_allowed[changed]
    return legal


def worth(sequence, logits):
    return sum(logits["ACGT".index(base), i] for i, base in enumerate(sequence))
