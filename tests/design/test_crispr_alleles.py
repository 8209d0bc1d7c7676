"""CRISPR alleles against the editing of strings, guides on both strands, what is refilled, and the front."""

import re
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from ciscribe.design.alleles import (
    CAS9,
    CAS12A,
    TOOLS,
    Alleles,
    EnumerateAlleles,
    base_rates,
    enumerate_alleles,
    find_guides,
    pareto_front,
)
from ciscribe.design.constraints import Constraints
from ciscribe.design.front import front as nondominated
from ciscribe.design.objective import Maximize, Target
from ciscribe.design.rules import Avoid
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError, SchemaError, UnknownNameError
from ciscribe.oracle import Oracle
from ciscribe.sequence import decode, encode, reverse_complement_codes
from ciscribe.testing import check_designer

OFFSET, LENGTH = 89, 131


def locus(seed: int = 0, length: int = 293) -> np.ndarray:
    return np.random.default_rng(seed).choice(4, length, p=[0.2, 0.2, 0.28, 0.32]).astype(np.uint8)


def turned(text: str) -> str:
    return text[::-1].translate(str.maketrans("ACGT", "TGCA"))


class Count(nn.Module):
    """How many A there are, weighed by where."""

    def __init__(self, length: int = LENGTH):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-0.5, 1, length))

    def forward(self, X: Tensor) -> Tensor:
        return (X[:, 0] * self.weight).sum(dim=1, keepdim=True)


def oracle(length: int = LENGTH) -> Oracle:
    return Oracle(Count(length), device="cpu")


# ---- guides


@pytest.mark.parametrize(("nuclease", "forward"), [
    (CAS9, r"(?=([ACGT]{20})[ACGT]GG)"), (CAS12A, r"(?=TTT[ACG]([ACGT]{23}))")])
def test_guides_are_those_of_a_regular_expression_on_both_strands(nuclease, forward):
    window = locus(3, 1009)
    text = decode(window)
    expected = [("+", m.start(1), m.group(1)) for m in re.finditer(forward, text)]
    expected += [("-", len(text) - m.end(1), m.group(1)) for m in re.finditer(forward, turned(text))]
    found = find_guides(window, nuclease)
    assert set(zip(found["strand"], found["start"], found["guide"], strict=True)) == set(expected)
    assert {"+", "-"} == set(found["strand"])
    assert len(found) == len(expected) > 5
    for row in found.itertuples():
        at = text[row.start:row.end]
        assert row.guide == (at if row.strand == "+" else turned(at))
        assert re.fullmatch("[ACGT]GG" if nuclease is CAS9 else "TTT[ACG]", row.pam)


def test_both_strands_cut_three_bases_before_the_pam():
    plus, minus = "ATATATATATATATATAACTTGG", turned("ATATATATATATATATAACTTGG")
    assert find_guides(encode(plus)).loc[0, ["strand", "start", "cuts", "pam"]].tolist() == ["+", 0, (17,), "TGG"]
    assert find_guides(encode(minus)).loc[0, ["strand", "start", "cuts", "pam"]].tolist() == ["-", 3, (6,), "TGG"]


def test_a_staggered_cut_has_two_ends_on_both_strands():
    text = "TTTC" + "AC" * 11 + "A"
    assert find_guides(encode(text), CAS12A).loc[0, "cuts"] == (4 + 18, 4 + 23)
    assert find_guides(encode(turned(text)), CAS12A).loc[0, "cuts"] == (0, 5)


# ---- alleles


def by_strings(text: str, offset: int, length: int, tools: list[str], indels: list[int]) -> set[str]:
    """All edited model sequences, the last base staying in place, by editing strings; scope is the model's part."""
    alleles: set[str] = set()
    end = offset + length

    def keep(a: int, b: int, middle: str) -> None:
        if a < offset or b > end:
            return
        left, right = text[:a] + middle, text[b:]
        if b < end:  # the last base is there still: fill up from the left
            last = len(left) + end - b
            edited = left + right
        else:
            edited, last = left + right, end if middle else len(left) + 1
        if last - length >= 0 and last <= len(edited):
            alleles.add(edited[last - length:last])

    for tool in tools:
        name = "Cas12a" if tool == "Cas12a" else "Cas9"
        pattern = r"(?=([ACGT]{20})[ACGT]GG)" if name == "Cas9" else r"(?=TTT[ACG]([ACGT]{23}))"
        sites = [(m.start(1), m.end(1), "+") for m in re.finditer(pattern, text)]
        sites += [(len(text) - m.end(1), len(text) - m.start(1), "-") for m in re.finditer(pattern, turned(text))]
        if tool in ("CBE", "ABE"):
            old, new = {"CBE": "CT", "ABE": "AG"}[tool]
            for a, b, strand in sites:
                spacer = text[a:b] if strand == "+" else turned(text[a:b])
                places = [i for i in range(3, 8) if spacer[i] == old]
                for k in range(1, len(places) + 1):
                    for chosen in combinations(places, k):
                        made = "".join(new if i in chosen else base for i, base in enumerate(spacer))
                        low, high = (chosen[0], chosen[-1] + 1) if strand == "+" else (20 - chosen[-1] - 1,
                                                                                        20 - chosen[0])
                        made = made if strand == "+" else turned(made)
                        keep(a + low, a + high, made[low:high])
            continue
        cuts = []
        for a, b, strand in sites:
            for k in (17,) if name == "Cas9" else (18, 23):
                cuts.append((a + k if strand == "+" else b - k, strand))
        for cut, strand in cuts:
            for size in indels:
                if size < 0:
                    for a in range(cut + size, cut + 1):
                        keep(a, a - size, "")
                elif name == "Cas9":
                    keep(cut, cut, text[cut - 1] if strand == "+" else text[cut])
        for (a, _), (b, _) in combinations(sorted(cuts), 2):
            if a < b:
                keep(a, b, "")
    return alleles - {text[offset:end]}


@pytest.mark.parametrize("tools", [["Cas9"], ["Cas12a"], ["CBE"], ["ABE"], ["Cas9", "Cas12a", "CBE", "ABE"]])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_alleles_equal_the_editing_of_strings(tools, seed):
    window, indels = locus(seed), [-1, -2, -3, -5, -10, 1]
    alleles = enumerate_alleles(window, OFFSET, LENGTH, tools=tools, indels=indels)
    expected = by_strings(decode(window), OFFSET, LENGTH, tools, indels)
    assert set(alleles.table["sequence"].iloc[1:]) == expected
    assert len(alleles) == len(expected) + 1  # each once
    assert [decode(row) for row in alleles.codes] == alleles.table["sequence"].tolist()


def test_each_row_says_how_its_sequence_is_made():
    window = locus()
    text = decode(window)
    alleles = enumerate_alleles(window, OFFSET, LENGTH, tools=list(TOOLS))
    end = OFFSET + LENGTH
    assert set(alleles.table["kind"]) == {"wild type", "indel", "deletion", "base edit"}
    for row in alleles.table.itertuples():
        edited = text[:row.start] + row.alt + text[row.end:]
        if row.end < end:
            last = end + len(row.alt) - (row.end - row.start)
            assert edited[last - LENGTH:last] == row.sequence
        guides = row.guides.split(";") if row.guides else []
        assert len(guides) == row.n_guides == len(set(guides))
        for guide, strand in zip(guides, row.strands.split(";"), strict=False):
            assert guide in (text if strand == "+" else turned(text))
        assert row.deleted == (row.end - row.start if not row.alt else 0)
    deletions = alleles.table[alleles.table["kind"] == "deletion"]
    two = deletions[deletions["n_guides"] == 2]
    for row in two.itertuples():
        cuts = [{int(cut) for cut in each.split("/")} for each in row.cuts.split(";")]
        assert any({row.start, row.end} == {a, b} for a in cuts[0] for b in cuts[1])


def test_one_staggered_cut_can_lose_its_overhang():
    table = enumerate_alleles(locus(), OFFSET, LENGTH, tools=["Cas12a"], indels=[]).table
    alone = table[table["n_guides"] == 1]
    assert len(alone) > 1
    assert (alone["deleted"] == 5).all()
    assert (alone["kind"] == "deletion").all()


def test_the_genome_shifts_in_on_the_side_of_the_deletion():
    window = locus()
    text, anchor = decode(window), OFFSET + 30
    alleles = enumerate_alleles(window, OFFSET, LENGTH, tools=["Cas9"], anchor=anchor)
    seen = set()
    for row in alleles.table[alleles.table["deleted"] > 0].itertuples():
        if row.end <= anchor:  # upstream of the anchor: what is downstream stays
            keep = row.end - OFFSET
            assert row.sequence[keep:] == text[row.end:OFFSET + LENGTH]
            assert row.sequence[:row.deleted] == text[OFFSET - row.deleted:OFFSET]
            seen.add("upstream")
        elif row.start > anchor:
            assert row.sequence[:row.start - OFFSET] == text[OFFSET:row.start]
            assert row.sequence[-row.deleted:] == text[OFFSET + LENGTH:OFFSET + LENGTH + row.deleted]
            seen.add("downstream")
        else:  # the base after the junction takes the place of the anchor
            assert row.sequence[anchor - OFFSET] == text[row.end]
            seen.add("across")
    assert seen == {"upstream", "downstream", "across"}


def test_the_other_strand_has_the_same_alleles():
    window = locus(5)
    one = enumerate_alleles(window, OFFSET, LENGTH, tools=list(TOOLS), anchor=OFFSET + 40)
    offset = len(window) - OFFSET - LENGTH
    # deleted anchors give way to the base on their right, so the mirror is exact where the anchor is not touched
    two = enumerate_alleles(reverse_complement_codes(window), offset, LENGTH, tools=list(TOOLS),
                            anchor=offset + LENGTH - 1 - 40)
    whole = [set(made.table.loc[(made.table["end"] <= at) | (made.table["start"] > at), "sequence"])
             for made, at in ((one, OFFSET + 40), (two, offset + LENGTH - 1 - 40))]
    assert len(whole[0]) > 100
    assert whole[0] - {one.table["sequence"][0]} <= {turned(s) for s in two.table["sequence"]}
    assert whole[1] - {two.table["sequence"][0]} <= {turned(s) for s in one.table["sequence"]}


def test_scope_span_and_what_the_window_cannot_fill():
    window = locus()
    scoped = enumerate_alleles(window, OFFSET, LENGTH, scope=(OFFSET + 20, OFFSET + 47)).table.iloc[1:]
    assert len(scoped)
    assert scoped["start"].min() >= OFFSET + 20
    assert scoped["end"].max() <= OFFSET + 47
    short = enumerate_alleles(window, OFFSET, LENGTH, max_span=13).table
    assert short["deleted"].max() <= 13
    tight = enumerate_alleles(window[OFFSET - 20:], 20, LENGTH, tools=["Cas9"])
    assert 0 < tight.table["deleted"].max() <= 20
    with pytest.raises(ConfigError, match=r"\d+ alleles .* 60 bp cannot be filled up .* needs \d+ bp more on the left"):
        enumerate_alleles(window[OFFSET - 20:], 20, LENGTH, tools=["Cas9"], max_span=60)


def test_a_locus_without_guides_has_its_wild_type_alone():
    alleles = enumerate_alleles(encode("AT" * 50), 10, 37)
    assert len(alleles) == 1
    assert alleles.table["kind"][0] == "wild type"


# ---- scores


def test_the_front_is_that_of_nondominated_sorting():
    rng = np.random.default_rng(0)
    score, guides, deleted = rng.integers(0, 29, 307) / 7, rng.integers(0, 3, 307), rng.integers(0, 31, 307)
    marked = pareto_front(score, guides, deleted)
    assert np.array_equal(marked, nondominated(np.column_stack([score, -guides, -deleted])) == 0)
    assert 3 < marked.sum() < 100


def test_alleles_are_scored_exactly_and_the_best_compromise_is_on_the_front():
    window = locus()
    alleles = enumerate_alleles(window, OFFSET, LENGTH)
    wild = float(oracle().predict(torch.from_numpy(alleles.codes[:1])))
    objective = Target(oracle(), value=wild - 2.0)
    scored = alleles.score(objective)
    by_hand = oracle().predict(torch.from_numpy(alleles.codes))[:, 0].double().numpy()
    assert scored["prediction"].to_numpy() == pytest.approx(by_hand, abs=1e-5)
    assert scored["score"].to_numpy() == pytest.approx(-np.abs(by_hand - wild + 2), abs=1e-5)
    assert scored["gain"][0] == 0
    assert scored["front"][0]
    front = scored[scored["front"]].sort_values("score")
    assert front["score"].iloc[-1] == scored["score"].max()
    assert "score" not in alleles.table
    rates = base_rates(alleles.score(Maximize(oracle())))
    gains = pd.Series(by_hand - wild)[(scored["kind"] == "deletion").to_numpy()]
    row = rates[rates["kind"] == "deletion"].iloc[0]
    assert (row["n"], row["better"]) == (len(gains), pytest.approx((gains > 0).mean(), abs=0.02))


# ---- as a designer


def test_the_designer_finds_the_best_allele_and_its_guides():
    alleles = enumerate_alleles(locus(), OFFSET, LENGTH)
    objective = Maximize(oracle())
    made = design(objective, alleles.codes[:1], EnumerateAlleles, n=5, budget=50_000, alleles=alleles)
    scored = alleles.score(objective)
    assert made.score == pytest.approx(np.sort(scored["score"])[::-1][:5], abs=1e-5)
    assert made.queries == len(alleles) + 5
    assert alleles.find(made.codes)["sequence"].tolist() == [decode(row) for row in made.codes]
    assert alleles.find(made.codes)["n_guides"].min() >= 1


def test_alleles_of_several_promoters_are_kept_apart():
    sets = [enumerate_alleles(locus(seed), OFFSET, LENGTH) for seed in (0, 1, 2)]
    made = design(Maximize(oracle()), np.stack([one.codes[0] for one in sets]), EnumerateAlleles, n=3, budget=50_000,
                  alleles=sets)
    assert sorted(made.origin) == [0, 1, 2]
    for row, start in zip(made.codes, made.origin, strict=True):
        assert len(sets[start].find(row[None])) == 1


def test_a_small_budget_takes_the_simplest_alleles():
    alleles = enumerate_alleles(locus(), OFFSET, LENGTH)
    made = design(Maximize(oracle()), None, EnumerateAlleles, length=LENGTH, n=2, budget=53, alleles=alleles)
    assert made.queries == 53
    assert alleles.find(made.codes)["n_guides"].max() <= 1


def test_the_contract_of_designers_holds():
    alleles = enumerate_alleles(locus(4), OFFSET, LENGTH)
    word = next(word for word in ("GGTCTC", "ACGTA", "TTAAC", "CCAGT", "GACT")
                if word not in decode(alleles.codes[0]) and turned(word) not in decode(alleles.codes[0])
                and any(word in s for s in alleles.table["sequence"]))
    rules = Constraints([Avoid(word)], length=LENGTH)
    assert not rules.ok(alleles.codes).all()
    check_designer(partial(design, method=EnumerateAlleles), Maximize(oracle()), rules, alleles.codes[:1],
                   alleles=alleles)


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"tools": ["Cas99"]}, UnknownNameError, "Cas99.*did you mean 'Cas9'"),
    ({"offset": 163}, SchemaError, "within the window"),
    ({"indels": [2]}, ConfigError, "indels .* got 2"),
    ({"max_span": 0}, ConfigError, "max_span"),
    ({"anchor": 3}, ConfigError, "anchor"),
    ({"scope": (9, 5)}, ConfigError, "scope"),
])
def test_impossible_settings(change, error, match):
    with pytest.raises(error, match=match):
        enumerate_alleles(**({"window": locus(), "offset": OFFSET, "length": LENGTH} | change))


def test_bad_windows_and_starts():
    window = locus()
    window[[7, 11]] = 4
    with pytest.raises(SchemaError, match="2 of 293 are N, the first at 7"):
        enumerate_alleles(window, OFFSET, LENGTH)
    alleles = enumerate_alleles(locus(), OFFSET, LENGTH)
    with pytest.raises(SchemaError, match="1 of 2 sequences are none of these"):
        alleles.find(np.stack([alleles.codes[3], np.zeros(LENGTH, np.uint8)]))
    with pytest.raises(ConfigError, match="start 0 differs"):
        design(Maximize(oracle()), alleles.codes[1:2], EnumerateAlleles, n=1, budget=500, alleles=alleles)
    with pytest.raises(ConfigError, match="one list for each start; got 1"):
        design(Maximize(oracle()), alleles.codes[:2], EnumerateAlleles, n=1, budget=500, alleles=alleles)
    with pytest.raises(ConfigError, match="listed for 131 bp"):
        design(Maximize(oracle(31)), None, EnumerateAlleles, length=31, n=1, budget=500, alleles=alleles)
    assert isinstance(alleles, Alleles)
