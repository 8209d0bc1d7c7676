"""The automaton reads words as a plain search does, and its dynamic programs agree with writing everything out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ciscribe.design.automaton import NEVER, Automaton
from ciscribe.errors import ConfigError
from ciscribe.sequence import encode
from reference import constraints as twin


def automaton(*words, flanks=("", "")):
    return Automaton.of(words, (encode(flanks[0]), encode(flanks[1])))


def everything(length):
    return np.stack([encode(sequence) for sequence in twin.everything(length)])


def test_states__are_those_of_aho_and_corasick_that_live():
    words = ("GGTCTC", "GAGACC", "GAAGAC", "GTCTTC")
    machine = automaton(*words)
    assert len(machine.next) == 1 + len({word[:i] for word in words for i in range(1, 6)}) + 1
    assert (machine.next[-1] == len(machine.next) - 1).all()  # dead for good
    assert len(automaton("AC", "AC", "ACGT").next) == 3  # what holds a forbidden word adds nothing
    assert len(automaton().next) == 2


@given(st.lists(st.text("ACGTNRY", min_size=1, max_size=4), max_size=4), st.text("ACGT", max_size=3),
       st.text("ACGT", max_size=3))
def test_accepts__as_a_plain_search(words, before, behind):
    codes = everything(4)
    whole = [before + sequence + behind for sequence in twin.everything(4)]
    expected = [not any(twin.has(word, sequence) for word in words) for sequence in whole]
    np.testing.assert_array_equal(automaton(*words, flanks=(before, behind)).accepts(codes), expected)


@given(st.lists(st.text("ACGTNW", min_size=1, max_size=3), max_size=3), st.integers(0, 3), st.integers(0, 99),
       st.booleans())
def test_best_and_finish__with_edits_and_gc_counted(words, most, seed, is_narrow):
    length = 4
    rng = np.random.default_rng(seed)
    machine = automaton(*words, flanks=("A", "C"))
    starts = rng.integers(0, 4, (2, length), dtype=np.uint8)
    allowed = rng.random((2, 4, length)) < 0.8
    gc = (2, 2) if is_narrow else (1, 3)
    logits, row = rng.normal(size=(3, 4, length)), np.array([1, 0, 1])
    codes, score = machine.best(logits, allowed, row, starts, most, gc)
    needed = machine.edits_to_finish(allowed, starts, gc)[:, 0, machine.start, 0]
    sequences, at = everything(length), np.arange(length)
    n_gc = (sequences % 3 > 0).sum(axis=1)
    for i, a in enumerate(row):
        fine = machine.accepts(sequences) & allowed[a][sequences, at].all(axis=1) & (gc[0] <= n_gc) & (n_gc <= gc[1])
        edits = (sequences != starts[a]).sum(axis=1)
        assert needed[a] == (edits[fine].min() if fine.any() else NEVER)
        worth = logits[i][sequences, at].sum(axis=1)[fine & (edits <= most)]
        assert score[i] == pytest.approx(worth.max(initial=-np.inf), abs=1e-9)
        if len(worth):
            assert logits[i][codes[i], at].sum() == pytest.approx(score[i], abs=1e-9)
        else:
            assert (codes[i] == 4).all()


def test_substitutions__stop_where_nothing_can_change_any_more():
    rng = np.random.default_rng(0)
    machine = automaton("GGTNNC", "AAAAAA", "TTA", flanks=("GGT", "AA"))
    codes = rng.integers(0, 4, (17, 43), dtype=np.uint8)
    legal = machine.substitutions(codes)
    assert legal.any()
    for i in range(43):
        for base in range(4):
            changed = codes.copy()
            changed[:, i] = base
            np.testing.assert_array_equal(legal[:, base, i], machine.accepts(changed) & (codes[:, i] != base))


def test_ties__go_to_the_first_base():
    anything, row = np.ones((1, 4, 5), dtype=bool), np.zeros(1, dtype=np.int64)
    codes, score = automaton("AA").best(np.zeros((1, 4, 5)), anything, row)
    assert codes.tolist() == [[0, 1, 0, 1, 0]]
    assert score.tolist() == [0]


def test_too_many_words():
    words = ["R" + "".join("SW"[i >> k & 1] for k in range(9)) + "N" * 9 + "Y" for i in range(64)]
    with pytest.raises(ConfigError, match="64 forbidden words need more than 16,384 states"):
        automaton(*words)
