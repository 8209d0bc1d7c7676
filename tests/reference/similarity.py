"""Slow twins of the similarity groups: k-mers as strings, all pairs, flooding."""

from collections import Counter

COMPLEMENT = str.maketrans("ACGT", "TGCA")


def kmer_set(sequence: str, k: int, both_strands: bool) -> set[str]:
    """Distinct k-mers without N; with both strands the earlier in the alphabet of a k-mer and its reverse."""
    found = {sequence[i:i + k] for i in range(len(sequence) - k + 1)}
    found = {word for word in found if "N" not in word}
    return {min(word, word[::-1].translate(COMPLEMENT)) for word in found} if both_strands else found


def linked(sequences: list[str], k: int, threshold: float, both_strands: bool, ubiquitous: float
           ) -> list[tuple[int, int]]:
    """Pairs that must come into one group."""
    whole = [kmer_set(s, k, both_strands) for s in sequences]
    count = Counter(word for words in whole for word in words)
    everywhere = {word for word, c in count.items() if c > ubiquitous * len(sequences)} if len(sequences) > 2 else set()
    rare = [words - everywhere for words in whole]
    family = [len(w) > 2 * len(r) for w, r in zip(whole, rare, strict=True)]
    pairs = []
    for i in range(len(sequences)):
        for j in range(i):
            shared = len(rare[i] & rare[j])
            similar = shared > 0 and shared >= threshold * min(len(rare[i]), len(rare[j]))
            copies = not whole[i] and sequences[i] == sequences[j]
            if similar or copies or (family[i] and family[j]):
                pairs.append((i, j))
    return pairs


def flood(n: int, pairs: list[tuple[int, int]]) -> list[int]:
    """Groups closed under the pairs, numbered by first appearance."""
    label = list(range(n))
    changed = True
    while changed:
        changed = False
        for i, j in pairs:
            low = min(label[i], label[j])
            if label[i] != low or label[j] != low:
                label[i] = label[j] = low
                changed = True
    order = {value: number for number, value in enumerate(dict.fromkeys(label))}
    return [order[value] for value in label]
