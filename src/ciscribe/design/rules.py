"""The rules that a designed sequence may have to keep, one by one; `ciscribe.design.constraints` compiles them.

Positions count from the first base of the design; those of the flanks before and after it are negative or beyond.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy import ndarray

from ciscribe.data.motif_table import IUPAC
from ciscribe.errors import ConfigError, nearest
from ciscribe.sequence import BASES, decode, encode

_SITES = """
AarI CACCTGC  AatII GACGTC  Acc65I GGTACC  AcuI CTGAAG  AflII CTTAAG  AgeI ACCGGT  AhdI GACNNNNNGTC  AluI AGCT
AlwNI CAGNNNCTG  ApaI GGGCCC  ApaLI GTGCAC  AscI GGCGCGCC  AsiSI GCGATCGC  AvaI CYCGRG  AvrII CCTAGG  BamHI GGATCC
BbsI GAAGAC  BbvI GCAGC  BceAI ACGGC  BciVI GTATCC  BclI TGATCA  BcoDI GTCTC  BfuAI ACCTGC  BglI GCCNNNNNGGC
BglII AGATCT  BpiI GAAGAC  BpmI CTGGAG  BsaBI GATNNNNATC  BsaI GGTCTC  BseRI GAGGAG  BsgI GTGCAG  BsiWI CGTACG
BsmAI GTCTC  BsmBI CGTCTC  BsmFI GGGAC  BspEI TCCGGA  BspMI ACCTGC  BspQI GCTCTTC  BsrDI GCAATG  BsrGI TGTACA
BsrI ACTGG  BssHII GCGCGC  BstBI TTCGAA  BstEII GGTNACC  BstXI CCANNNNNNTGG  Bsu36I CCTNAGG  BtgZI GCGATG
BtsCI GGATG  BtsI GCAGTG  ClaI ATCGAT  DdeI CTNAG  DpnI GATC  DpnII GATC  DraIII CACNNNGTG  EagI CGGCCG  EarI CTCTTC
EciI GGCGGA  Eco31I GGTCTC  EcoO109I RGGNCCY  EcoRI GAATTC  EcoRV GATATC  Esp3I CGTCTC  FokI GGATG  FseI GGCCGGCC
HaeIII GGCC  HgaI GACGC  HincII GTYRAC  HindIII AAGCTT  HinfI GANTC  HpaI GTTAAC  HpaII CCGG  HphI GGTGA
I-SceI TAGGGATAACAGGGTAAT  KasI GGCGCC  KpnI GGTACC  LguI GCTCTTC  MboI GATC  MboII GAAGA  MfeI CAATTG  MluI ACGCGT
MlyI GAGTC  MmeI TCCRAC  MseI TTAA  MspI CCGG  NaeI GCCGGC  NarI GGCGCC  NcoI CCATGG  NdeI CATATG  NgoMIV GCCGGC
NheI GCTAGC  NlaIII CATG  NotI GCGGCCGC  NruI TCGCGA  NsiI ATGCAT  PacI TTAATTAA  PaqCI CACCTGC  PciI ACATGT
PflMI CCANNNNNTGG  PmeI GTTTAAAC  PpuMI RGGWCCY  PstI CTGCAG  PvuI CGATCG  PvuII CAGCTG  RsaI GTAC  RsrII CGGWCCG
SacI GAGCTC  SacII CCGCGG  SalI GTCGAC  SapI GCTCTTC  Sau3AI GATC  SbfI CCTGCAGG  ScaI AGTACT  SfaNI GCATC
SfiI GGCCNNNNNGGCC  SgrAI CRCCGGYG  SmaI CCCGGG  SnaBI TACGTA  SpeI ACTAGT  SphI GCATGC  SrfI GCCCGGGC  StuI AGGCCT
SwaI ATTTAAAT  TaqI TCGA  XbaI TCTAGA  XcmI CCANNNNNNNNNTGG  XhoI CTCGAG  XmaI CCCGGG  XmnI GAANNNNTTC
"""
ENZYMES: dict[str, str] = dict(zip(_SITES.split()[::2], _SITES.split()[1::2], strict=True))
"""Recognition sites of restriction enzymes, type IIS among them, 5' to 3' in IUPAC letters."""

_TURNED = str.maketrans("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN")
_LONGEST_WORD = 31  # of Repeats: a word is one number of 62 bits
_CODES = np.arange(4, dtype=np.uint8)[:, None]

Flanks = tuple[UInt8[ndarray, " A"], UInt8[ndarray, " B"]]
Fault = tuple[int, int, str]
"""Where a rule is broken (start, end), and what stands there."""


class Rule(ABC):
    """What a designed sequence must keep; the base of all rules."""

    @property
    def needs_starts(self) -> bool:
        """Whether it looks at the sequences from which a design starts."""
        return False

    def check_length(self, length: int) -> None:  # noqa: B027 – most rules fit any length
        """Raise ConfigError where the rule does not fit designs of this length."""

    @abstractmethod
    def faults(self, codes: UInt8[ndarray, " L"], flanks: Flanks, start: UInt8[ndarray, " L"] | None
               ) -> Iterator[Fault]:
        """Where one sequence breaks the rule; `start` is there where the rule needs it."""


@dataclass(frozen=True)
class Avoid(Rule):
    """Words that must not occur, not even across the junctions with the flanks: restriction sites, start codons.

    Parameters
    ----------
    words
        Words in IUPAC letters or names of restriction enzymes (`ENZYMES`), one or many.
    both_strands
        Forbid their reverse complements too.
    """

    words: str | Iterable[str]
    both_strands: bool = True

    def __post_init__(self) -> None:
        words = (self.words,) if isinstance(self.words, str) else tuple(self.words)
        object.__setattr__(self, "words", words)
        if not words:
            raise ConfigError("Avoid needs at least one word or enzyme; got none")
        for word in words:
            if word not in ENZYMES and not _is_iupac(word):
                raise ConfigError(f"Avoid takes words of IUPAC letters and names of restriction enzymes; got {word!r}; "
                                  f"{nearest(str(word), ENZYMES)}")

    def spelled(self) -> dict[str, str]:
        """Each forbidden word on each strand that counts, and what to call it."""
        found: dict[str, str] = {}
        for name in self.words:
            word = ENZYMES.get(name, name.upper())
            called = word if name.upper() == word else f"{name} {word}"
            found.setdefault(word, called)
            if self.both_strands:
                found.setdefault(_turned(word), f"{called} on the other strand")
        return found

    def faults(self, codes: UInt8[ndarray, " L"], flanks: Flanks, start: UInt8[ndarray, " L"] | None
               ) -> Iterator[Fault]:
        """Occurrences of the words."""
        full = np.concatenate([flanks[0], codes, flanks[1]])
        for word, called in self.spelled().items():
            for at in np.flatnonzero(matches(word, full[None])[0]) - len(flanks[0]):
                yield int(at), int(at) + len(word), called

    def __str__(self) -> str:
        return f"Avoid({', '.join(self.words)})"


@dataclass(frozen=True)
class Homopolymer(Rule):
    """No run of one base is longer than `most` bp, the flanks included."""

    most: int

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ConfigError(f"Homopolymer(most) is the longest run that is allowed, at least 1: no sequence has only "
                              f"shorter ones; got {self.most}")

    def spelled(self) -> dict[str, str]:
        """The shortest runs that are too long."""
        return {base * (self.most + 1): base * (self.most + 1) for base in BASES}

    def faults(self, codes: UInt8[ndarray, " L"], flanks: Flanks, start: UInt8[ndarray, " L"] | None
               ) -> Iterator[Fault]:
        """Runs that are too long, each whole."""
        full = np.concatenate([flanks[0], codes, flanks[1]])
        edges = np.concatenate([[0], np.flatnonzero(np.diff(full)) + 1, [len(full)]])
        for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            if end - begin > self.most:
                yield begin - len(flanks[0]), end - len(flanks[0]), f"{end - begin} {BASES[full[begin]]}"


@dataclass(frozen=True)
class Repeats(Rule):
    """No word of `length` bp occurs twice, the flanks included.

    Parameters
    ----------
    length
        2 to 31 bp. Occurrences may overlap.
    both_strands
        Inverted repeats count too (hairpins); a word that is its own reverse complement does not by itself.
    """

    length: int
    both_strands: bool = True

    def __post_init__(self) -> None:
        if not 2 <= self.length <= _LONGEST_WORD:
            raise ConfigError(f"Repeats(length) takes 2 to {_LONGEST_WORD} bp; got {self.length}")

    @property
    def n_words(self) -> int:
        """How many different words there are."""
        n = 4**self.length
        palindromes = 2**self.length if self.length % 2 == 0 else 0
        return (n + palindromes) // 2 if self.both_strands else n

    def words(self, codes: UInt8[ndarray, "N L"]) -> Int[ndarray, "N W"]:
        """Number of the word at each position; the same for a word and what counts as its repeat."""
        width = max(codes.shape[1] - self.length + 1, 0)
        forward, reverse = np.zeros((2, len(codes), width), dtype=np.int64)
        for i in range(self.length if width else 0):
            bases = codes[:, i:i + width].astype(np.int64)
            forward = 4 * forward + bases
            reverse += (3 - bases) << (2 * i)
        return np.minimum(forward, reverse) if self.both_strands else forward

    def ok(self, codes: UInt8[ndarray, "N L"], flanks: Flanks) -> Bool[ndarray, " N"]:
        """Whether each sequence keeps the rule."""
        words = np.sort(self.words(with_flanks(codes, flanks)), axis=1)
        return np.all(words[:, 1:] != words[:, :-1], axis=1)

    def moves(self, codes: UInt8[ndarray, "N L"], flanks: Flanks) -> Bool[ndarray, "N 4 L"]:
        """Which single substitutions keep the rule; only the words over a substitution are looked up."""
        out = np.zeros((len(codes), 4, codes.shape[1]), dtype=np.bool_)
        _repeat_moves(with_flanks(codes, flanks), len(flanks[0]), self.length, self.both_strands, out)
        return out

    def faults(self, codes: UInt8[ndarray, " L"], flanks: Flanks, start: UInt8[ndarray, " L"] | None
               ) -> Iterator[Fault]:
        """Words that stood before, with where."""
        full = with_flanks(codes[None], flanks)[0]
        for (first, _), (at, end) in self.pairs(codes, flanks):
            yield at, end, f"{decode(full[at + len(flanks[0]):end + len(flanks[0])])} as at {first}"

    def pairs(self, codes: UInt8[ndarray, " L"], flanks: Flanks) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Start and end of the first occurrence of a word, and of each that repeats it."""
        first: dict[int, int] = {}
        for i, word in enumerate(self.words(with_flanks(codes[None], flanks))[0].tolist()):
            at = i - len(flanks[0])
            before = first.setdefault(word, at)
            if before != at:
                yield (before, before + self.length), (at, at + self.length)


@dataclass(frozen=True)
class GC(Rule):
    """Share of G and C of the design (without its flanks), over all of it or in every window.

    Parameters
    ----------
    low, high
        Bounds from 0 to 1, both included.
    window
        Length of the windows in bp; None, and a window longer than the design, mean the whole design.
    """

    low: float
    high: float
    window: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ConfigError(f"GC takes shares with 0 <= low <= high <= 1; got low {self.low}, high {self.high}")
        if self.window is not None and self.window < 1:
            raise ConfigError(f"a GC window has at least 1 bp; got {self.window}")

    def bounds(self, length: int) -> tuple[int, int, int]:
        """Width in bp of what is counted, and the fewest and most G and C in it."""
        width = min(self.window or length, length)
        return width, math.ceil(self.low * width - 1e-9), math.floor(self.high * width + 1e-9)

    def check_length(self, length: int) -> None:
        """Raise ConfigError where no count is a share between the bounds."""
        width, low, high = self.bounds(length)
        if low > high:
            raise ConfigError(f"{self} cannot be kept: no number of G and C among {width} bases is a share from "
                              f"{self.low} to {self.high}; widen the bounds")

    def ok(self, codes: UInt8[ndarray, "N L"]) -> Bool[ndarray, " N"]:
        """Whether each sequence keeps the rule."""
        width, low, high = self.bounds(codes.shape[1])
        counts = window_sums(is_gc(codes), width)
        return np.all((low <= counts) & (counts <= high), axis=1)

    def moves(self, codes: UInt8[ndarray, "N L"]) -> Bool[ndarray, "N 4 L"]:
        """Which single substitutions keep the rule: windows over it gain or lose one, the others stay."""
        width, low, high = self.bounds(codes.shape[1])
        strong = is_gc(codes)
        counts = window_sums(strong, width)
        bad = [(counts + change < low) | (counts + change > high) for change in (-1, 0, 1)]
        around = [window_sums(np.pad(b, ((0, 0), (width - 1,) * 2)), width) for b in bad]  # windows over each base
        elsewhere = bad[1].sum(axis=1, keepdims=True) - around[1]
        fine = np.stack([a + elsewhere == 0 for a in around], axis=1)  # by change −1, 0, 1
        change = is_gc(_CODES).astype(np.int64) - strong[:, None] + 1
        return np.take_along_axis(fine, change, axis=1)

    def faults(self, codes: UInt8[ndarray, " L"], flanks: Flanks, start: UInt8[ndarray, " L"] | None
               ) -> Iterator[Fault]:
        """Windows that are out of bounds."""
        width, low, high = self.bounds(len(codes))
        for at, count in enumerate(window_sums(is_gc(codes)[None], width)[0].tolist()):
            if not low <= count <= high:
                yield at, at + width, f"GC {count / width:.3f}"


@dataclass(frozen=True)
class Keep(Rule):
    """Bases that must stay as they are in the start, or a motif that must stand somewhere.

    Parameters
    ----------
    what
        Positions (0-based) or a bool mask ``(L,)``: these bases stay those of the start. Or a motif in IUPAC letters:
        wherever the start holds it, on either strand, it still matches (a W may change from A to T).
    at
        Where a motif has to stand instead, on the strand that is written, whatever the start holds.
    """

    what: str | Sequence[int] | Sequence[bool] | ndarray
    at: int | None = None
    width: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.what, str):
            if not _is_iupac(self.what):
                raise ConfigError(f"Keep takes a motif of IUPAC letters ({''.join(IUPAC)}), positions or a mask; got "
                                  f"{self.what!r}")
            object.__setattr__(self, "what", self.what.upper())
        elif self.at is not None:
            raise ConfigError("Keep(at=...) says where a motif stands; positions and masks say so themselves")
        else:
            _set_positions(self, "what")

    @property
    def needs_starts(self) -> bool:
        """Unless it is said where the motif stands."""
        return self.at is None

    def check_length(self, length: int) -> None:
        """Raise ConfigError where something is to be kept beyond the end."""
        if self.at is not None and not 0 <= self.at <= length - len(self.what):
            raise ConfigError(f"{self} does not lie within the {length:,} bp of a design")
        if not isinstance(self.what, str):
            _check_positions(self, self.what, self.width, length)

    def allowed(self, starts: UInt8[ndarray, "S L"]) -> Bool[ndarray, "S 4 L"]:
        """Bases that each position may hold; with `at`, those do not depend on the starts."""
        free = np.ones((len(starts), 4, starts.shape[1]), dtype=np.bool_)
        if not isinstance(self.what, str):
            kept = list(self.what)
            free[:, :, kept] = (starts[:, None] == _CODES)[:, :, kept]
        elif self.at is not None:
            free[:, :, self.at:self.at + len(self.what)] = classes(self.what)
        else:
            for word in {self.what, _turned(self.what)}:
                rows, at = np.nonzero(matches(word, starts))
                for i, bases in enumerate(classes(word).T):
                    free[rows, :, at + i] &= bases
        return free

    def check_starts(self, starts: UInt8[ndarray, "S L"]) -> None:
        """Raise ConfigError when no start holds the motif."""
        if isinstance(self.what, str) and self.at is None and self.allowed(starts).all():
            raise ConfigError(f"{self}: none of {len(starts):,} starts holds this motif on either strand; say where it "
                              "must stand with at=..., or drop the rule")

    def faults(self, codes: UInt8[ndarray, " L"], flanks: Flanks, start: UInt8[ndarray, " L"] | None
               ) -> Iterator[Fault]:
        """Bases that were not kept."""
        return _not_allowed(codes, self.allowed(codes[None] if start is None else start[None])[0])

    def __str__(self) -> str:
        if isinstance(self.what, str):
            return f"Keep({self.what}{'' if self.at is None else f', at={self.at}'})"
        return f"Keep({_listed(self.what)})"


@dataclass(frozen=True)
class MaxEdits(Rule):
    """At most `k` bases differ from the start."""

    k: int

    def __post_init__(self) -> None:
        if self.k < 0:
            raise ConfigError(f"MaxEdits(k) takes 0 or more edits; got {self.k}")

    @property
    def needs_starts(self) -> bool:
        """Edits are counted from them."""
        return True

    def faults(self, codes: UInt8[ndarray, " L"], flanks: Flanks, start: UInt8[ndarray, " L"] | None
               ) -> Iterator[Fault]:
        """The whole sequence, where there are too many."""
        edits = np.flatnonzero(codes != (codes if start is None else start))
        if len(edits) > self.k:
            yield int(edits[0]), int(edits[-1]) + 1, f"{len(edits)} edits"


@dataclass(frozen=True)
class EditScope(Rule):
    """Only these positions may differ from the start: a bool mask ``(L,)`` or positions (0-based)."""

    mask: Sequence[int] | Sequence[bool] | ndarray
    width: int | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        _set_positions(self, "mask")
        if not len(self.mask):
            raise ConfigError("EditScope holds no position: nothing could be changed; name those that may be edited")

    @property
    def needs_starts(self) -> bool:
        """All other bases are theirs."""
        return True

    def check_length(self, length: int) -> None:
        """Raise ConfigError where a position lies beyond the end."""
        _check_positions(self, self.mask, self.width, length)

    def allowed(self, starts: UInt8[ndarray, "S L"]) -> Bool[ndarray, "S 4 L"]:
        """Bases that each position may hold."""
        free = starts[:, None] == _CODES
        free[:, :, list(self.mask)] = True
        return free

    def faults(self, codes: UInt8[ndarray, " L"], flanks: Flanks, start: UInt8[ndarray, " L"] | None
               ) -> Iterator[Fault]:
        """Edits elsewhere."""
        return _not_allowed(codes, self.allowed(codes[None] if start is None else start[None])[0])

    def __str__(self) -> str:
        return f"EditScope({_listed(self.mask)})"


def is_gc(codes: UInt8[ndarray, "*shape"]) -> Bool[ndarray, "*shape"]:
    """Whether each base is G or C."""
    return (codes == 1) | (codes == 2)


def window_sums(values: Bool[ndarray, "N L"], width: int) -> Int[ndarray, "N W"]:
    """Sums over every window."""
    total = np.zeros((len(values), values.shape[1] + 1), dtype=np.int64)
    np.cumsum(values, axis=1, out=total[:, 1:])
    return total[:, width:] - total[:, :-width]


def classes(word: str) -> Bool[ndarray, "4 W"]:
    """Bases that the letters of an IUPAC word stand for."""
    return np.array([[base in IUPAC[letter] for letter in word] for base in BASES])


def matches(word: str, codes: UInt8[ndarray, "N L"]) -> Bool[ndarray, "N P"]:
    """Where a word of IUPAC letters begins, on this strand."""
    width = max(codes.shape[1] - len(word) + 1, 0)
    found = np.ones((len(codes), width), dtype=np.bool_)
    for i, bases in enumerate(classes(word).T):
        found &= bases[codes[:, i:i + width]]
    return found


def with_flanks(codes: UInt8[ndarray, "N L"], flanks: Flanks) -> UInt8[ndarray, "N F"]:
    """Sequences between their constant flanks."""
    left, right = (np.broadcast_to(flank, (len(codes), len(flank))) for flank in flanks)
    return np.concatenate([left, codes, right], axis=1)


def flank_codes(flanks: tuple[str, str]) -> Flanks:
    """Flanks as codes.

    Raises
    ------
    ConfigError
        When they hold other letters than A, C, G and T.
    """
    for flank in flanks:
        if set(flank.upper()) - set(BASES):
            raise ConfigError(f"a flank is constant DNA of A, C, G and T; got {flank!r}")
    return encode(flanks[0]), encode(flanks[1])


def _is_iupac(word: object) -> bool:
    return isinstance(word, str) and bool(word) and not set(word.upper()) - set(IUPAC)


def _turned(word: str) -> str:
    return word.translate(_TURNED)[::-1]


def _set_positions(rule: Rule, name: str) -> None:
    """Turn a mask or positions into sorted positions, and remember how long the mask was."""
    given = np.asarray(getattr(rule, name))
    if given.ndim != 1 or (given.size and given.dtype.kind not in "bui"):
        raise ConfigError(f"{type(rule).__name__} takes positions or a bool mask (L,); got {given.dtype} of shape "
                          f"{given.shape}")
    if given.dtype.kind == "b":
        object.__setattr__(rule, "width", len(given))
        given = np.flatnonzero(given)
    object.__setattr__(rule, name, tuple(sorted({int(i) for i in given})))


def _check_positions(rule: Rule, positions: Sequence[int] | ndarray, width: int | None, length: int) -> None:
    if width not in (None, length):
        raise ConfigError(f"{rule} was made of a mask of {width:,} bp; designs have {length:,} bp")
    outside = [i for i in positions if not 0 <= i < length]
    if outside:
        raise ConfigError(f"{rule}: {len(outside)} of {len(positions)} positions lie outside of the {length:,} bp of a "
                          f"design; first: {outside[0]}")


def _listed(positions: Sequence[int] | ndarray) -> str:
    shown = ", ".join(map(str, positions[:4]))
    return f"positions {shown}" if len(positions) <= 4 else f"{len(positions)} positions: {shown}, …"


def _not_allowed(codes: ndarray, allowed: ndarray) -> Iterator[Fault]:
    for i in np.flatnonzero(~allowed[codes, np.arange(len(codes))]).tolist():
        fine = "".join(base for base, is_allowed in zip(BASES, allowed[:, i], strict=True) if is_allowed)
        yield i, i + 1, f"{BASES[codes[i]]}, not {fine}"


@numba.njit(cache=True, nogil=True)
@no_type_check  # pytest's shape checks cannot wrap compiled functions
def _repeat_moves(full, offset, k, both_strands, out):  # pragma: no cover - compiled
    n_sequences, _, length = out.shape
    n_words = full.shape[1] - k + 1
    if n_words < 2:
        out[:] = True
    forward, reverse = np.empty(max(n_words, 0), np.int64), np.empty(max(n_words, 0), np.int64)
    for n in range(n_sequences if n_words > 1 else 0):
        bases = full[n]
        for j in range(n_words):
            forward[j], reverse[j] = 0, 0
            for t in range(k):
                forward[j] = 4 * forward[j] + bases[j + t]
                reverse[j] += np.int64(3 - bases[j + t]) << (2 * t)
        words = np.minimum(forward, reverse) if both_strands else forward
        kinds = np.unique(words)
        kind = np.searchsorted(kinds, words)
        count = np.zeros(len(kinds), np.int64)
        for j in range(n_words):
            count[kind[j]] += 1
        repeated = (count > 1).sum()
        fresh = np.empty(k, np.int64)
        for i in range(length):
            at = offset + i
            low, high = max(0, at - k + 1), min(at, n_words - 1) + 1
            for j in range(low, high):
                count[kind[j]] -= 1
                if count[kind[j]] == 1:
                    repeated -= 1
            if repeated == 0:
                for base in range(4):
                    change = np.int64(base) - np.int64(bases[at])
                    if change == 0:
                        continue
                    fine = True
                    for j in range(low, high):
                        t = at - j
                        word = forward[j] + change * (np.int64(1) << (2 * (k - 1 - t)))
                        if both_strands:
                            word = min(word, reverse[j] - change * (np.int64(1) << (2 * t)))
                        found = np.searchsorted(kinds, word)
                        fine = not (found < len(kinds) and kinds[found] == word and count[found] > 0)
                        for other in range(j - low):
                            fine = fine and fresh[other] != word
                        if not fine:
                            break
                        fresh[j - low] = word
                    out[n, base, i] = fine
            for j in range(low, high):
                count[kind[j]] += 1
                if count[kind[j]] == 2:
                    repeated += 1
