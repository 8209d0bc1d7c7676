"""One name per chromosome: ``chr1`` and ``1``, ``chrM`` and ``MT`` are the same sequence.

`reconcile` matches the names of a file with those of the genome and returns a `NameMap`, which renames
tables and prints what it did, so that nothing is dropped in silence.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import pandas as pd

from ciscribe.errors import InputError

_MITOCHONDRION = {"m", "mt", "mtdna", "mito", "mitochondrion", "mitochondrial"}
_ROMAN = [
    "I",
    "II",
    "III",
    "IV",
    "V",
    "VI",
    "VII",
    "VIII",
    "IX",
    "X",
    "XI",
    "XII",
    "XIII",
    "XIV",
    "XV",
    "XVI",
]


@dataclass(frozen=True)
class NameMap:
    """How the chromosome names of a file read in the names of the genome.

    Parameters
    ----------
    mapping
        Name in the file → name in the genome, in the file's order; no two names share a target.
    unmatched
        Names in the file that the genome does not have.
    what
        What the names came from, for the report.
    """

    mapping: dict[str, str]
    unmatched: tuple[str, ...] = ()
    what: str = "file"

    def report(self) -> str:
        """One or two readable lines: how many names match as they are, which are renamed, which dropped."""
        renamed = [f"{a} → {b}" for a, b in self.mapping.items() if a != b]
        total = len(self.mapping) + len(self.unmatched)
        line = f"{self.what}: {len(self.mapping):,} of {total:,} chromosome names match the genome"
        line += f", {len(renamed):,} of them renamed ({_some(renamed)})" if renamed else ", all as they are"
        if self.unmatched:
            dropped = _some(self.unmatched)
            line += f"\n{self.what}: {len(self.unmatched):,} dropped, not in the genome ({dropped})"
        return line

    def rename(self, table: pd.DataFrame) -> pd.DataFrame:
        """Copy of a table with `chrom` in the genome's names; rows of unmatched names are left out."""
        chrom = [self.mapping.get(name) for name in table["chrom"]]
        kept = table.loc[[name is not None for name in chrom]]
        return kept.assign(chrom=[name for name in chrom if name is not None]).reset_index(drop=True)


def reconcile(names: Iterable[str], reference: Iterable[str], what: str = "file") -> NameMap:
    """Match the chromosome names of a file with those of the genome.

    A name that the genome has stays. Otherwise the prefix ``chr``, letter case and the synonyms of the
    mitochondrion (``chrM``, ``M``, ``MT``, ``MtDNA``, ``mitochondrion``) are overlooked. Roman numerals are
    names like any other. When two names would become one, the exact one wins, else the first.

    Parameters
    ----------
    names
        Names in the file; repeats are fine.
    reference
        Names in the genome.
    what
        What the names came from, e.g. ``"genes"``, for the report and the error.

    Raises
    ------
    InputError
        If there are names and none matches; it says which came, which were expected, and guesses a mapping.

    Examples
    --------
    >>> print(reconcile(["1", "MT", "KI270728.1"], ["chr1", "chr2", "chrM"], "genes").report())
    genes: 2 of 3 chromosome names match the genome, 2 of them renamed (1 → chr1, MT → chrM)
    genes: 1 dropped, not in the genome (KI270728.1)
    """
    names = list(dict.fromkeys(str(name) for name in names))
    reference = list(dict.fromkeys(str(name) for name in reference))
    exact = set(names) & set(reference)
    by_key: dict[str, list[str]] = {}
    for name in reference:
        by_key.setdefault(_key(name), []).append(name)
    mapping: dict[str, str] = {}
    taken = set(exact)
    for name in names:
        targets = [name] if name in exact else by_key.get(_key(name), [])
        if name in exact or (len(targets) == 1 and targets[0] not in taken):
            mapping[name] = targets[0]
            taken.add(targets[0])
    if names and not mapping:
        raise InputError(
            f"no chromosome name of the {what} is in the genome: the {what} has {_some(names)}; "
            f"the genome has {_some(reference)}; {_guess(names, reference)}"
        )
    return NameMap(mapping, tuple(name for name in names if name not in mapping), what)


def _key(name: str) -> str:
    key = re.sub(r"^(chromosome|chrom|chr)[_ .]?(?=.)", "", name.strip().lower())
    return "mt" if key in _MITOCHONDRION else key


def _guess(names: list[str], reference: list[str]) -> str:
    """Clause for the error: a mapping that a person would try first, or where to look."""
    by_key = {_key(name): name for name in reference}
    pairs = []
    for name in names:
        key = _key(name)
        refseq = re.fullmatch(r"nc_0*(\d+)\.\d+", key)
        number = refseq[1] if refseq else key
        options = [number]
        if number.isdigit() and 1 <= int(number) <= len(_ROMAN):
            options.append(_ROMAN[int(number) - 1].lower())
        if number.upper() in _ROMAN:
            options.append(str(_ROMAN.index(number.upper()) + 1))
        target = next((by_key[o] for o in options if o in by_key), None)
        if target is None:
            target = next(iter(get_close_matches(name, reference, n=1, cutoff=0.6)), None)
        if target is not None and target not in [b for _, b in pairs]:
            pairs.append((name, target))
    if pairs:
        guess = _some([f"{a} → {b}" for a, b in pairs])
        return f"perhaps {guess}? rename them in the file, or use the genome's build"
    return "check that both are of the same species and build, or rename the chromosomes in the file"


def _some(names: Iterable[str], n: int = 5) -> str:
    names = list(names)
    return ", ".join(names[:n]) + (f", … {len(names) - n:,} more" if len(names) > n else "")
