"""Constraints equal brute force on short sequences, and never let anything through on long ones."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ciscribe.design.constraints import (
    ENZYMES,
    GC,
    Avoid,
    Constraints,
    EditScope,
    Homopolymer,
    Keep,
    MaxEdits,
    Repeats,
    repair,
)
from ciscribe.errors import ConfigError, SchemaError
from ciscribe.sequence import decode, encode
from reference import constraints as twin

SITES = ("BsaI", "BbsI", "BsmBI", "SapI")
FLANKS = ("ACGTTGCAGG", "TCTCAGGTACCA")
USUAL = (Avoid(SITES), Homopolymer(5), GC(0.35, 0.6))


def codes_of(*sequences):
    return np.stack([encode(sequence) for sequence in sequences])


def text(codes):
    return [decode(row) for row in codes]


def rng(seed=0):
    return np.random.default_rng(seed)


def logits_of(n, length, seed=0):
    return rng(seed).normal(size=(n, 4, length))


# ------------------------------------------------------------------------------------------------- against brute force

words = st.text("ACGTNRW", min_size=1, max_size=4).filter(lambda word: set(word) != {"N"})
dna = st.text("ACGT", max_size=3)


@st.composite
def problems(draw, loose):
    """Rules (class and arguments: nothing of ours may run while hypothesis draws), flanks and start of a design."""
    length = draw(st.integers(1, 5))
    places = st.sets(st.integers(0, length - 1), min_size=1)
    shares = st.tuples(st.integers(0, 4), st.integers(0, 4)).map(lambda pair: (min(pair) / 4, max(pair) / 4))
    kinds = [
        st.tuples(st.just(Avoid), st.lists(words, min_size=1, max_size=3), st.booleans()),
        st.tuples(st.just(Homopolymer), st.integers(1, 4)),
        shares.map(lambda pair: (GC, *pair)),
        places.map(lambda where: (Keep, sorted(where))),
        st.tuples(st.just(Keep), st.text("ACGTNW", min_size=1, max_size=min(2, length)), st.just(0)),
        st.tuples(st.just(Keep), st.text("ACGTW", min_size=1, max_size=min(2, length))),
        st.tuples(st.just(MaxEdits), st.integers(0, 3)),
        places.map(lambda where: (EditScope, sorted(where))),
    ]
    if loose:
        kinds += [st.tuples(st.just(Repeats), st.integers(2, 3), st.booleans()),
                  st.tuples(shares, st.integers(2, 4)).map(lambda both: (GC, *both[0], both[1]))]
    rules = draw(st.lists(st.one_of(kinds), max_size=4))
    start = draw(st.text("ACGT", min_size=length, max_size=length))
    return rules, (draw(dna), draw(dna)), start, draw(st.integers(0, 2**16))


def compiled(rules, flanks, start):
    """The constraints, or None where they refuse; and which sequences are allowed by brute force."""
    everything = twin.everything(len(start))
    is_allowed = {sequence: twin.allowed(sequence, rules, flanks, start) for sequence in everything}
    try:
        return Constraints(rules, flanks=flanks, length=len(start)).bind(codes_of(start)), is_allowed
    except ConfigError as error:
        refusal = str(error)
    flank_is_at_fault = any(twin.breaks_alone(rule, flank) for rule in rules for flank in flanks)
    assert flank_is_at_fault or "stand in both" in refusal or "none of 1 starts" in refusal or not any(
        is_allowed.values()), refusal
    return None, is_allowed


def check_problem(problem):
    rules, flanks, start, seed = problem
    rules = [kind(*arguments) for kind, *arguments in rules]
    is_exact = not any(isinstance(rule, Repeats) or (isinstance(rule, GC) and (rule.window or len(start)) < len(start))
                       for rule in rules)
    constraints, is_allowed = compiled(rules, flanks, start)
    if constraints is None:
        return
    everything = codes_of(*is_allowed)
    fine = np.array(list(is_allowed.values()))
    np.testing.assert_array_equal(constraints.ok(everything), fine)
    broken = constraints.violations(everything)
    assert set(broken["sequence"]) == set(np.flatnonzero(~fine))
    some = rng(seed).choice(len(everything), 7)
    for row, legal in zip(some, constraints.moves(everything[some]), strict=True):
        np.testing.assert_array_equal(legal, twin.moves(decode(everything[row]), is_allowed))

    logits = logits_of(5, len(start), seed)
    logits[3:][rng(seed).random((2, 4, len(start))) < 0.2] = -np.inf
    codes, score = constraints.project(logits)
    mended, edits = constraints.repair(everything[some])
    for sequence, value, worth in zip(codes, score, logits, strict=True):
        best = max((twin.worth(s, worth) for s, yes in is_allowed.items() if yes), default=-np.inf)
        if value == -np.inf:
            assert (sequence == 4).all()
            assert best == -np.inf or not is_exact
        else:
            assert is_allowed[decode(sequence)]
            assert value == pytest.approx(twin.worth(decode(sequence), worth), abs=1e-9)
            assert value == pytest.approx(best, abs=1e-9) if is_exact else value <= best + 1e-9
    for before, after, n in zip(text(everything[some]), text(mended), edits, strict=True):
        differing = [sum(a != b for a, b in zip(before, s, strict=True)) for s, yes in is_allowed.items() if yes]
        if n < 0:
            assert after == before
            assert not differing or not is_exact
        else:
            assert is_allowed[after]
            assert n == sum(a != b for a, b in zip(before, after, strict=True))
            assert n == min(differing) if is_exact else n >= min(differing)

    if not fine.any():
        with pytest.raises(ConfigError, match="no sequence keeps all"):
            constraints.random(1, rng())
        return
    beginnings = {s[:i] for s, yes in is_allowed.items() if yes for i in range(len(start) + 1)}
    sample = [s for s in is_allowed if is_allowed[s]][:11]
    legal = constraints.continuations(codes_of(*sample))
    for sequence, bases in zip(sample, legal, strict=True):
        for i in range(len(start)):
            can = [sequence[:i] + base in beginnings for base in "ACGT"]
            assert (bases[:, i] == can).all() if is_exact else (bases[:, i] >= can).all()
    assert constraints.ok(constraints.random(13, rng(seed))).all()
    liked = rng(seed).permutation(4)
    drawn = constraints.sample(lambda prefix: np.tile(1e6 * liked, (len(prefix), 1)), 3, rng(seed))
    if is_exact:  # at every position the base that is liked most, of those that can still be finished
        greedy = ""
        while len(greedy) < len(start):
            greedy += max((b for b in "ACGT" if greedy + b in beginnings), key=lambda b: liked["ACGT".index(b)])
        assert text(drawn) == [greedy] * 3
    assert all(is_allowed[sequence] for sequence in text(drawn))


@settings(max_examples=40)
@given(problems(loose=False))
def test_brute_force__what_the_automaton_holds(problem):
    check_problem(problem)


@settings(max_examples=30)
@given(problems(loose=True))
def test_brute_force__with_repeats_and_gc_windows(problem):
    check_problem(problem)


LONGER = [
    (8, (MaxEdits(4), GC(0.4, 0.6), Homopolymer(2), Avoid(("GRC", "TTA"))), ("GA", "AC"), "GACCTTAA"),
    (6, (EditScope([0, 1, 2, 3, 5]), Avoid("GGATG"), Keep("TW")), ("GG", "TG"), "GATGTA"),
    (6, (GC(0.25, 0.75, 4), Repeats(4), Avoid("GNNC", both_strands=False)), ("TTA", "C"), "ACGTAA"),
]


@pytest.mark.parametrize(("length", "rules", "flanks", "start"), LONGER)
def test_brute_force__longer(length, rules, flanks, start):
    constraints = Constraints(rules, flanks=flanks, length=length).bind(codes_of(start))
    everything = twin.everything(length)
    is_allowed = {sequence: twin.allowed(sequence, rules, flanks, start) for sequence in everything}
    codes, fine = codes_of(*everything), np.array(list(is_allowed.values()))
    assert 0 < fine.sum() < len(fine)
    np.testing.assert_array_equal(constraints.ok(codes), fine)
    logits = logits_of(11, length)
    best = [max(logit[row, np.arange(length)].sum() for row in codes[fine]) for logit in logits]
    projected, score = constraints.project(torch.from_numpy(logits))
    assert constraints.ok(projected).all()
    if any(isinstance(rule, Repeats) for rule in rules):
        assert (score <= np.array(best) + 1e-9).all()
        assert np.mean(np.array(best) - score) < 0.5
    else:
        np.testing.assert_allclose(score, best, atol=1e-9)
    for row in rng().choice(len(codes), 41):
        np.testing.assert_array_equal(constraints.moves(codes[row][None])[0], twin.moves(everything[row], is_allowed))
    drawn = set(text(constraints.random(20 * int(min(fine.sum(), 150)), rng())))
    assert drawn <= {sequence for sequence, yes in is_allowed.items() if yes}
    if fine.sum() < 40:
        assert len(drawn) == fine.sum()  # every allowed sequence can be drawn


# --------------------------------------------------------------------------------------------------- long sequences


def test_sample__a_hundred_thousand_without_a_word():
    constraints = Constraints((Avoid(SITES), Homopolymer(4)), flanks=FLANKS, length=23)
    codes = constraints.random(100_000, rng(), gc=0.6)
    whole = "|".join(FLANKS[0] + sequence + FLANKS[1] for sequence in text(codes))
    forbidden = [ENZYMES[name] for name in SITES]
    for word in forbidden + [twin.turned(word) for word in forbidden] + [base * 5 for base in "ACGT"]:
        assert word not in whole
    assert (codes[:, 11] % 3 > 0).mean() == pytest.approx(0.6, abs=0.03)
    unchecked = "|".join(FLANKS[0] + s + FLANKS[1] for s in text(rng().integers(0, 4, (1000, 23), dtype=np.uint8)))
    assert any(word in unchecked for word in forbidden)


@pytest.mark.parametrize("most", [0, 1, 3, 30, 43])
@pytest.mark.parametrize("kind", ["noise", "few levels", "forbidden"])
def test_project__few_edits_are_those_of_the_automaton(most, kind):
    """Cheap where edits alone decide; the same sequences and ties as the whole way through the automaton."""
    n, length = 53, 43
    logits = logits_of(n, length)
    if kind == "few levels":
        logits = np.round(logits)
    if kind == "forbidden":
        logits[rng(1).random(logits.shape) < 0.2] = -np.inf
    starts = rng(2).integers(0, 4, (7, length)).astype(np.uint8)
    rules = (Avoid(["GGTCTC", "CAGNG"]), Homopolymer(6), GC(0.3, 0.65))
    constraints = Constraints((*rules, MaxEdits(most), EditScope(range(40))), length=length)
    origin = np.arange(n) % 7
    bound = constraints._bound(starts)  # some starts break rules: with few edits nothing is left
    codes, score = bound.project(logits, origin)
    low, high = bound._feasible.gc
    whole, expected = bound._feasible.automaton.best(logits, bound._feasible.allowed, origin, starts, most, (low, high))
    np.testing.assert_allclose(score, expected)
    np.testing.assert_array_equal(codes, whole)


def test_project__usual_rules():
    logits = logits_of(67, 173)
    constraints = Constraints(USUAL, flanks=FLANKS, length=173)
    argmax = logits.argmax(axis=1).astype(np.uint8)
    fine = constraints.ok(argmax)
    assert 0.4 < fine.mean() < 0.9
    codes, score = constraints.project(logits)
    assert constraints.ok(codes).all()
    np.testing.assert_array_equal(codes[fine], argmax[fine])
    np.testing.assert_allclose(score, np.take_along_axis(logits, codes[:, None], axis=1).sum(axis=(1, 2)))
    rich = logits + 2 * np.array([0, 1, 1, 0])[:, None]  # far too much G and C
    codes, _ = constraints.project(rich)
    assert constraints.ok(codes).all()
    assert set(((codes % 3 > 0).sum(axis=1)).tolist()) <= {102, 103}
    assert not constraints.moves(codes)[:, :, 0].all()


def test_all_rules_together():
    length, n = 127, 13
    rules = (*USUAL, GC(0.3, 0.65, 50), Repeats(9), Keep("TATAWA", at=50), MaxEdits(23))
    starts = Constraints((*rules[:-1],), flanks=FLANKS, length=length).random(5, rng())
    constraints = Constraints(rules, flanks=FLANKS, length=length).bind(starts)
    origin = rng().integers(0, 5, n)
    assert constraints.ok(starts, np.arange(5)).all()
    for codes in (constraints.project(logits_of(n, length), origin)[0], constraints.random(n, rng(), origin=origin)):
        assert constraints.ok(codes, origin).all()
        assert ((codes != starts[origin]).sum(axis=1) <= 23).all()
        row, base, at = np.nonzero(constraints.moves(codes, origin))
        moved = codes[row].copy()
        moved[np.arange(len(row)), at] = base
        assert constraints.ok(moved, origin[row]).all()
        assert len(row) > 100 or (codes != starts[origin]).sum(axis=1).min() == 23
    everywhere = constraints.moves(starts[:1], np.zeros(1, dtype=np.int64))[0]
    for at in range(0, length, 7):
        for base in set(range(4)) - {int(starts[0, at])}:
            changed = starts[:1].copy()
            changed[0, at] = base
            assert constraints.ok(changed, np.zeros(1, dtype=np.int64))[0] == everywhere[base, at]


def test_moves__mend_a_broken_sequence():
    constraints = Constraints(Avoid("BsaI"), length=12)
    legal = constraints.moves(codes_of("AAGGTCTCAAAA", "GGTCTCGAGACC", "AAAAAAAAAAAA"))
    np.testing.assert_array_equal(legal[0].any(axis=0), [False] * 2 + [True] * 6 + [False] * 4)
    assert not legal[1].any()  # two sites
    assert legal[2].sum() == 36


# ----------------------------------------------------------------------------------------------------------- the rest


def test_no_rules__everything_goes():
    constraints = Constraints()
    logits = logits_of(3, 17)
    codes, score = constraints.project(logits)
    np.testing.assert_array_equal(codes, logits.argmax(axis=1))
    np.testing.assert_allclose(score, logits.max(axis=1).sum(axis=1))
    assert constraints.ok(codes).all()
    np.testing.assert_array_equal(constraints.moves(codes), codes[:, None] != np.arange(4)[:, None])
    assert constraints.violations(codes).empty
    assert not constraints.repair(codes)[1].any()
    with pytest.raises(ConfigError, match="how long designs are"):
        constraints.random(3, rng())


def test_sample__is_the_model_where_nothing_is_forbidden():
    logits = np.log([0.1, 0.2, 0.3, 0.4])
    seen = []

    def step(prefix):
        seen.append(prefix.shape)
        return np.broadcast_to(logits, (len(prefix), 4))

    codes = Constraints(length=5).sample(step, 10_007, rng())
    assert seen == [(10_007, i) for i in range(5)]
    shares = np.bincount(codes.ravel(), minlength=4) / codes.size
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4], atol=0.01)
    constraints = Constraints(USUAL, flanks=FLANKS, length=61)
    again = [constraints.random(7, rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert (again[0] != constraints.random(7, rng(4))).any()
    assert constraints.continuations(again[0])[np.arange(7)[:, None], again[0], np.arange(61)].all()
    with pytest.raises(SchemaError, match="without NaN"):
        constraints.sample(lambda prefix: np.full((len(prefix), 4), np.nan), 2, rng())


def test_walk__is_what_sample_draws_from():
    constraints = Constraints(Homopolymer(1), length=3)
    walk = constraints.walk(2)
    walk.take(np.array([0, 3]))
    assert walk.legal().tolist() == [[False, True, True, True], [True, True, True, False]]
    assert walk.prefix.tolist() == [[0], [3]]


def test_starts__each_sequence_has_its_own():
    starts = codes_of("AACCGGTTAAC", "TTTTTTTTTTT")
    constraints = Constraints((MaxEdits(2), Keep([0, 1]), EditScope(range(8))), length=11).bind(starts)
    logits = logits_of(6, 11)
    origin = np.array([0, 1, 1, 0, 1, 0])
    codes, score = constraints.project(logits, origin)
    for s in range(2):
        alone = Constraints(constraints.rules, length=11).bind(starts[s:s + 1])
        mine = origin == s
        np.testing.assert_array_equal(codes[mine], alone.project(logits[mine])[0])
        np.testing.assert_array_equal(constraints.moves(codes, origin)[mine], alone.moves(codes[mine]))
        np.testing.assert_array_equal(alone.ok(codes), mine | (codes == starts[s]).all(axis=1))
    np.testing.assert_allclose(score, np.take_along_axis(logits, codes[:, None], axis=1).sum(axis=(1, 2)))
    np.testing.assert_array_equal(
        constraints.ok(codes, origin), Constraints(constraints.rules).ok(codes, origin, starts=starts))
    assert constraints.allowed(np.array([1]))[0].sum(axis=0).tolist() == [1, 1, 4, 4, 4, 4, 4, 4, 1, 1, 1]
    rebound = constraints.bind(starts[::-1].copy())
    np.testing.assert_array_equal(rebound.ok(codes, 1 - origin), [True] * 6)
    with pytest.raises(ConfigError, match="which one each sequence comes from"):
        constraints.ok(codes)
    with pytest.raises(SchemaError, match="origin names one of 2 starts"):
        constraints.ok(codes, origin + 1)
    with pytest.raises(ConfigError, match=r"MaxEdits\(k=2\), Keep.*constraints.bind"):
        Constraints(constraints.rules, length=11).ok(codes)


@pytest.mark.parametrize("rules", [(), USUAL, (GC(0.4, 0.6, 5), Repeats(6), Homopolymer(3))])
def test_starts__that_no_rule_looks_at_change_nothing(rules):
    free = Constraints(rules, length=29)
    bound, origin = free.bind(free.random(3, rng(1))), np.array([2, 0, 1, 2, 1])
    for one, other in zip(free.project(logits_of(5, 29)), bound.project(logits_of(5, 29), origin), strict=True):
        np.testing.assert_array_equal(one, other)
    codes = free.random(5, rng())
    np.testing.assert_array_equal(codes, bound.random(5, rng(), origin=origin))
    np.testing.assert_array_equal(free.moves(codes), bound.moves(codes, origin))
    broken = codes // 2
    np.testing.assert_array_equal(free.repair(broken)[0], bound.repair(broken, origin)[0])
    assert bound.violations(broken, origin).equals(free.violations(broken))


def test_keep__a_motif_on_both_strands():
    start = codes_of("CTATAAGGTTATAC")
    constraints = Constraints(Keep("TATAW"), length=14).bind(start)
    free = constraints.allowed()[0]
    assert ["".join(b for b, yes in zip("ACGT", free[:, i], strict=True) if yes) for i in range(14)] == [
        "ACGT", "T", "A", "T", "A", "AT", "ACGT", "ACGT", "AT", "T", "A", "T", "A", "ACGT"]
    with pytest.raises(ConfigError, match="none of 1 starts holds this motif"):
        constraints.bind(codes_of("C" * 14))


def test_repair__fewest_edits_or_impossible():
    constraints = Constraints((Avoid(SITES), Homopolymer(5)), flanks=FLANKS, length=29)
    broken = codes_of("ACGTGGTCTCACGTACGTTGCATGCATCA",  # BsaI
                      "ACGTGGTCTCACGTAAAAAAAGCATGCTC",  # BsaI and seven A
                      "ACGTGCTCACACGTACGTTGCATGCATGG",  # BsaI over the 3' junction: GG + TCTC
                      "ACGTGCTCACACGTACGTTGCATGCATCA")
    assert not constraints.ok(broken)[:3].any()
    for mended, edits in (constraints.repair(broken), repair(broken, constraints)):
        assert edits.tolist() == [1, 2, 1, 0]
        assert constraints.ok(mended).all()
        np.testing.assert_array_equal((mended != broken).sum(axis=1), edits)
    assert set(constraints.violations(broken)["sequence"]) == {0, 1, 2}
    mended, edits = repair(broken, Constraints((*constraints.rules, MaxEdits(1)), flanks=FLANKS))
    assert edits.tolist() == [1, -1, 1, 0]
    np.testing.assert_array_equal(mended[1], broken[1])
    _, edits = repair(broken, Constraints((*constraints.rules, EditScope(range(20))), flanks=FLANKS))
    assert edits.tolist() == [1, 2, -1, 0]  # what must stay holds the junction
    windows = Constraints((GC(0.4, 0.6, 10), Repeats(8)), length=29)
    mended, edits = windows.repair(broken)
    assert windows.ok(mended).all()
    assert (edits > 0).any()


def test_violations__which_and_where():
    start = codes_of("ACGTGGTATCACAAACAAGT")
    rules = (Avoid("BsaI"), Homopolymer(5), GC(0.3, 0.4), Keep([0]), MaxEdits(2), EditScope([0, 1, 2, 15]))
    constraints = Constraints(rules, flanks=("GAGA", ""), length=20).bind(start)
    table = constraints.violations(codes_of("CCGTGGTCTCACAAAAAAGT", "ACGTGGTATCACAAACAAGT", "ATATGGTATCACAAATAAGT"))
    faults = [list(row) for row in table.itertuples(index=False)]
    assert faults == [
        [0, "Avoid(BsaI)", 4, 10, "BsaI GGTCTC"],
        [0, "Avoid(BsaI)", -4, 2, "BsaI GGTCTC on the other strand"],
        [0, "Homopolymer(most=5)", 12, 18, "6 A"],
        [0, "GC(low=0.3, high=0.4, window=None)", 0, 20, "GC 0.450"],
        [0, "Keep(positions 0)", 0, 1, "C, not A"],
        [0, "MaxEdits(k=2)", 0, 16, "3 edits"],
        [0, "EditScope(positions 0, 1, 2, 15)", 7, 8, "C, not A"],
        [2, "GC(low=0.3, high=0.4, window=None)", 0, 20, "GC 0.250"],
        [2, "MaxEdits(k=2)", 1, 16, "3 edits"],
    ]
    table = Constraints((Repeats(4), GC(0.5, 1, 4)), length=9).violations(codes_of("ACGGCCGTT"))
    faults = [list(row)[1:] for row in table.itertuples(index=False)]
    assert faults == [
        ["Repeats(length=4, both_strands=True)", 3, 7, "GCCG as at 1"],  # CGGC from the other side
        ["Repeats(length=4, both_strands=True)", 4, 8, "CCGT as at 0"],
        ["GC(low=0.5, high=1, window=4)", 5, 9, "GC 0.500"],
    ][:2]


CONTRADICTIONS = [
    ((Avoid("BsaI"), Keep("GGTCTC", at=3)), r"Avoid\(BsaI\) and Keep\(GGTCTC, at=3\)"),
    ((Homopolymer(5), Avoid("EcoRI"), Keep("AAAAAA", at=0)), r"Homopolymer\(most=5\) and Keep"),
    ((GC(0.0, 0.2), GC(0.5, 0.9)), r"GC\(low=0.0.* and GC\(low=0.5"),
    ((GC(0.0, 0.25, 8), GC(0.5, 0.9)), r"GC\(low=0.0.* and GC\(low=0.5"),
    ((GC(0.7, 1.0), Keep("AAAAAAA", at=5)), r"GC\(low=0.7.* and Keep"),
    ((GC(0.7, 1.0, 10), Keep("AAAAAAA", at=5)), r"GC\(low=0.7.* and Keep"),
    ((Keep("AC", at=5), Keep("GT", at=6)), r"Keep\(AC, at=5\) and Keep\(GT, at=6\)"),
    ((Avoid(["A", "C"]), Homopolymer(3)), r"keeps Avoid\(A, C\); it cannot"),
    ((Repeats(6), Keep("ACGACGTAACGACG", at=5)), r"Repeats\(length=6.* and Keep"),
    ((Repeats(2), Homopolymer(2)), r"keeps Repeats\(length=2, both_strands=True\); it"),
    ((Avoid(["W"]), GC(0, 1, 5), Avoid("CC", False), Avoid("GG", False), Avoid("CG", False)), "keeps .* together"),
]


@pytest.mark.parametrize(("rules", "message"), CONTRADICTIONS)
def test_contradictions__are_named(rules, message):
    with pytest.raises(ConfigError, match=message):
        Constraints(rules, length=20)
    with pytest.raises(ConfigError, match=message):
        Constraints(rules).ok(np.zeros((1, 20), dtype=np.uint8))


def test_contradictions__with_what_a_start_must_keep():
    starts = codes_of("ACGTACGTACG", "AAGGTCTCAAG", "AAGGTCTCAAT")
    constraints = Constraints((GC(0.2, 0.8), Avoid("BsaI"), Keep(range(2, 8))), length=11)
    with pytest.raises(ConfigError, match=r"Avoid\(BsaI\) and Keep.*2 of 3 starts; first: start 1"):
        constraints.bind(starts)
    tied = Constraints((GC(0.4, 0.8, 5), MaxEdits(3), EditScope([0, 1])), length=11)
    with pytest.raises(ConfigError, match=r"GC\(low=0.4.* and EditScope.*2 of 3 starts; first: start 1"):
        tied.bind(codes_of("ACGTACGTACG", "AAAAAAAAAAA", "ACGTTTTTTTA"))
    hopeless = Constraints((Avoid("BsaI"), MaxEdits(0)), length=11).bind(starts)  # no contradiction, but no way either
    origin = np.arange(3)
    assert hopeless.ok(starts, origin).tolist() == [True, False, False]
    assert hopeless.repair(starts, origin)[1].tolist() == [0, -1, -1]
    codes, score = hopeless.project(logits_of(3, 11), origin)
    assert (score > -np.inf).tolist() == [True, False, False]
    assert (codes[1:] == 4).all()
    with pytest.raises(ConfigError, match=r"none for 2 of 3; first: 1 \(start 1\)"):
        hopeless.random(3, rng(), origin=origin)


BAD = [
    (lambda: Homopolymer(0), "1"),
    (lambda: Avoid("BsaII"), "did you mean 'BsaI'"),
    (lambda: Avoid([]), "at least one word"),
    (lambda: Avoid(""), "names of restriction enzymes"),
    (lambda: Repeats(1), "2 to 31"),
    (lambda: GC(0.7, 0.3), "low <= high"),
    (lambda: GC(0.3, 0.7, 0), "at least 1 bp"),
    (lambda: MaxEdits(-1), "0 or more"),
    (lambda: EditScope([False] * 7), "nothing could be changed"),
    (lambda: Keep("AXC"), "IUPAC"),
    (lambda: Keep(np.array([0.5])), "positions or a bool mask"),
    (lambda: Keep([1], at=3), "say so themselves"),
    (lambda: Constraints(Keep([False] * 7), length=11), "mask of 7 bp; designs have 11"),
    (lambda: Constraints(EditScope([3, 11]), length=11), "1 of 2 positions lie outside.*first: 11"),
    (lambda: Constraints(Keep("ACGT", at=8), length=11), "does not lie within"),
    (lambda: Constraints(GC(0.47, 0.53), length=11), "no number of G and C among 11 bases"),
    (lambda: Constraints((word for word in ["BsaI"]), length=11), "expected rules like"),
    (lambda: Constraints(length=0), "at least 1 bp"),
    (lambda: Constraints(flanks=("ACN", "")), "a flank is constant DNA"),
    (lambda: Constraints(Avoid("BsaI"), flanks=("AGAGACCA", "")), r"5' flank breaks Avoid\(BsaI\).*strand at 1–7"),
    (lambda: Constraints(Homopolymer(3), flanks=("", "CGGGG")), "3' flank breaks Homopolymer.*4 G at 1–5"),
    (lambda: Constraints(Repeats(3), flanks=("ACCACC", "")), "5' flank breaks Repeats"),
    (lambda: Constraints(Repeats(4), flanks=("AACCT", "AGGTA")), "3' flank break.*1 words stand in both"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_rules(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_bad_sequences_and_logits():
    constraints = Constraints(Homopolymer(3), length=5)
    with pytest.raises(SchemaError, match="1 of 2 sequences hold an N; first: 1"):
        constraints.ok(codes_of("ACGTA", "ACNTA"))
    with pytest.raises(SchemaError, match="designs of 5 bp; got 7"):
        constraints.ok(codes_of("ACGTACG"))
    with pytest.raises(SchemaError, match="1 of 3 sequences hold NaN"):
        constraints.project(np.where(np.arange(3)[:, None, None] == 1, np.nan, np.zeros((3, 4, 5))))
    with pytest.raises(ConfigError, match="gc is a share"):
        constraints.random(1, rng(), gc=60.0)
    with pytest.raises(SchemaError, match="at least one"):
        Constraints(MaxEdits(1), length=5).bind(np.zeros((0, 5), dtype=np.uint8))


def test_enzymes__read_the_same_on_the_other_strand_where_they_should():
    sites = Avoid(["EcoRI", "BsaI", "SfiI", "ggtctc"]).spelled()
    assert sites == {"GAATTC": "EcoRI GAATTC", "GGTCTC": "BsaI GGTCTC", "GAGACC": "BsaI GGTCTC on the other strand",
                     "GGCCNNNNNGGCC": "SfiI GGCCNNNNNGGCC"}
    assert len(ENZYMES) > 120
    assert all(set(site) <= set(twin.LETTERS) for site in ENZYMES.values())
    pairs = [("BbsI", "BpiI"), ("BsmBI", "Esp3I"), ("BsaI", "Eco31I"), ("SapI", "LguI"), ("AarI", "PaqCI")]
    assert all(ENZYMES[one] == ENZYMES[other] for one, other in pairs)  # isoschizomers
