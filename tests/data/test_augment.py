"""Each augmentation does what its name says, to the share of sequences that was asked for."""

import pytest
import torch

from ciscribe.data.augment import EVOAUG, Augment
from ciscribe.errors import ConfigError


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_codes(n=211, length=97, seed=3):
    return torch.randint(0, 4, (n, length), generator=seeded(seed), dtype=torch.uint8)


def complement(codes):
    return torch.tensor([3, 2, 1, 0, 4], dtype=torch.uint8)[codes.long()]


ALL = [Augment(mutation=0.3), Augment(insertion=13), Augment(deletion=13), Augment(translocation=13),
       Augment(inversion=13), Augment(reverse_complement=0.5), Augment(shift=13), Augment(shift=13, fill="roll"),
       EVOAUG, Augment(mutation=0.1, deletion=97, insertion=97, n_per_sequence=7, shift=101)]


@pytest.mark.parametrize("augment", ALL, ids=str)
def test_augment__keeps_shape_and_argument_and_repeats_with_the_seed(augment):
    codes = random_codes()
    codes[5] = 4
    before = codes.clone()
    out = augment(codes, seeded())
    assert out.shape == codes.shape
    assert out.dtype == torch.uint8
    assert out.max() <= 4
    assert torch.equal(codes, before)
    assert not torch.equal(out, codes)
    assert torch.equal(out, augment(codes, seeded()))
    assert not torch.equal(out, augment(codes, seeded(1)))


def test_augment__of_nothing_is_a_copy():
    codes = random_codes()
    out = Augment()(codes, seeded())
    assert torch.equal(out, codes)
    assert out.data_ptr() != codes.data_ptr()
    assert torch.equal(Augment(mutation=0.5, n_per_sequence=0)(codes, seeded()), codes)


def test_mutation__changes_the_share_asked_for_and_no_n():
    codes = random_codes(length=307)
    codes[:, :11] = 4
    out = Augment(mutation=0.07)(codes, seeded())
    changed = out != codes
    assert not changed[:, :11].any()
    assert changed[:, 11:].float().mean() == pytest.approx(0.07, abs=0.005)
    step = (out.int() - codes.int())[changed] % 4
    assert torch.bincount(step, minlength=4)[1:].min() > 0.3 * changed.sum()  # every other base alike


def test_translocation__rolls_by_up_to_its_strength():
    codes = random_codes()
    out = Augment(translocation=13)(codes, seeded())
    rolls = torch.stack([torch.roll(codes, by, 1) for by in range(-13, 14)])
    which = (rolls == out).all(dim=2)
    assert (which.sum(dim=0) == 1).all()
    assert which.any(dim=1).all()  # each of the 27 occurs
    assert torch.equal(out.sort(dim=1).values, codes.sort(dim=1).values)


def test_reverse_complement__undoes_itself_and_happens_as_often_as_asked():
    codes = random_codes(n=1009)
    codes[:, 0] = 4
    always = Augment(reverse_complement=1.0)
    assert torch.equal(always(codes), complement(codes).flip(1))
    assert torch.equal(always(always(codes)), codes)
    some = Augment(reverse_complement=0.3)(codes, seeded())
    turned = (some == always(codes)).all(dim=1)
    assert torch.equal(torch.where(turned[:, None], always(codes), codes), some)
    assert turned.float().mean() == pytest.approx(0.3, abs=0.05)


def letters(codes):
    return ["".join("ACGTN"[c] for c in row) for row in codes.tolist()]


def check_explained(augment, by_hand, n=59, length=97):
    """Each copy is its sequence changed `by_hand` at some start and size, and the sizes and starts vary."""
    codes = random_codes(n, length)
    out = []
    for row, new in zip(letters(codes), letters(augment(codes, seeded())), strict=True):
        fits = [(start, size) for size in range(14) for start in range(length + 1) if by_hand(row, start, size, new)]
        assert fits
        out.append(fits[0])
    sizes = {size for _, size in out}
    assert min(sizes) == 0
    assert max(sizes) == 13
    assert max(start for start, _ in out) > 80


def test_inversion__turns_one_piece():
    table = str.maketrans("ACGT", "TGCA")
    check_explained(Augment(inversion=13), lambda row, start, size, new:
              row[:start] + row[start:start + size][::-1].translate(table) + row[start + size:] == new)


def test_deletion__takes_one_piece_out_and_keeps_the_middle():
    check_explained(Augment(deletion=13), lambda row, start, size, new:
              row[:start] + row[start + size:] == new[size // 2:size // 2 + 97 - size])


def test_insertion__puts_one_piece_in_and_cuts_both_ends():
    def by_hand(row, start, size, new):
        longer = row[:start] + "." * size + row[start:]
        return all(a in (".", b) for a, b in zip(longer[size // 2:size // 2 + 97], new, strict=True))

    check_explained(Augment(insertion=13), by_hand)


@pytest.mark.parametrize("fill", ["N", "roll"])
def test_shift__moves_and_fills(fill):
    codes = random_codes()
    out = Augment(shift=5, fill=fill)(codes, seeded())
    seen = set()
    for row, new in zip(codes, out, strict=True):
        options = {}
        for by in range(-5, 6):
            moved = torch.roll(row, by)
            if fill == "N" and by:
                moved[:by] = 4 if by > 0 else moved[:by]
                moved[by:] = 4 if by < 0 else moved[by:]
            options[by] = moved
        fits = [by for by, moved in options.items() if torch.equal(moved, new)]
        assert len(fits) == 1
        seen.update(fits)
    assert seen == set(range(-5, 6))


def test_n_per_sequence__draws_that_many_without_repeats():
    codes = random_codes(n=997)
    both = Augment(mutation=1.0, reverse_complement=1.0, n_per_sequence=2)(codes, seeded())
    turned = complement(codes).flip(1)
    mutated, flipped = (both != codes).float().mean(), (both != turned).all(dim=1)
    assert flipped.all()  # every base mutated, then turned
    assert mutated < 1
    one = Augment(mutation=1.0, reverse_complement=1.0, n_per_sequence=1)(codes, seeded())
    is_turned, is_mutated = (one == turned).all(dim=1), (one != codes).all(dim=1)
    assert (is_turned | is_mutated).all()
    assert is_turned.float().mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("options", "message"), [
    ({"mutation": 1.5}, "mutation is a share"), ({"reverse_complement": -0.1}, "reverse_complement is"),
    ({"insertion": -1}, "insertion is a whole number"), ({"shift": -3}, "shift is a whole number, 0 or more; got -3")])
def test_augment__refuses_impossible_strengths(options, message):
    with pytest.raises(ConfigError, match=message):
        Augment(**options)


def test_augment__refuses_pieces_longer_than_the_sequence():
    with pytest.raises(ConfigError, match="up to 101 bp do not fit into sequences of 97 bp"):
        Augment(deletion=101)(random_codes())
