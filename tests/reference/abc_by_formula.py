"""Activity by contact, written out pair by pair; slow, for tests."""

import math

import numpy as np


def expected_contact(distance, gamma, scale):
    return math.exp(scale - gamma * math.log(max(distance, 5000) + 1))


def repaired(dense):
    """Rows that sum to 1 in the mean, diagonal bins as the larger neighbour."""
    dense = np.nan_to_num(np.array(dense, float))
    sums = dense.sum(axis=1)
    dense = dense / np.mean([s for s in sums if s > 0])
    out = dense.copy()
    for i in range(len(dense)):
        beside = [dense[i, j] for j in (i - 1, i + 1) if 0 <= j < len(dense)]
        out[i, i] = max(beside)
    return out


def scores(elements, genes, reach, gamma, scale, dense=None, resolution=None):
    """(element row, gene row) → dict of numbers; elements (start, end, class, activity), genes are TSS."""
    gamma_ref, scale_ref = 0.87, -4.80 + 11.63 * 0.87
    hic = None if dense is None else repaired(dense)
    out = {}
    for g, tss in enumerate(genes):
        near = []
        for e, (start, end, kind, activity) in enumerate(elements):
            middle = (start + end) / 2
            distance = abs(middle - tss)
            if distance > reach:
                continue
            own = kind == "promoter" and start < tss + 500 and end > tss - 500
            near.append((e, middle, distance, own, activity))
        value = {e: None if hic is None else hic[int(middle // resolution), tss // resolution]
                 for e, middle, *_ in near}
        promoter = [value[e] for e, _, _, own, _ in near if own]
        unread = hic is not None and bool(promoter) and max(promoter) < 0.01
        numbers = {}
        for e, _, distance, own, activity in near:
            plain = expected_contact(distance, gamma, scale)
            if hic is None:
                contact, source = plain, "powerlaw"
            else:
                v = plain if unread else value[e]
                contact = v * expected_contact(distance, gamma_ref, scale_ref) / plain
                contact += min(plain, expected_contact(5000, gamma, scale))
                source = "powerlaw" if unread else "hic"
            numbers[e] = {"distance": distance, "contact": contact, "contact_source": source, "own": own,
                          "numerator": activity * contact}
        total = sum(v["numerator"] for v in numbers.values())
        for e, v in numbers.items():
            out[e, g] = v | {"abc": v["numerator"] / total if total > 0 else 0.0}
    return out
