"""Generators of regulatory DNA beside what is real, on natural promoters (track D).

``python validation/design.py generators [--write]``, or this file alone. Needs the public data sets (CISCRIBE_DATA
names their folder). Generators are fitted to one half of the groups of similar sequences with their activities, asked
for each level of activity equally often, and judged by trees that were fitted to the other half; sequences of neither
half say what real ones reach. Networks are small, options are defaults; none was tuned.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from design_league import ASSAYS, N_FOLDS, markdown, read
from jaxtyping import Float, UInt8
from numpy import ndarray

from ciscribe.data.similarity import grouped_folds, similarity_groups
from ciscribe.design.benchmark import generator_numbers
from ciscribe.design.generators import GENERATORS
from ciscribe.design.natives import MarkovChain
from ciscribe.sequence import dinucleotide_shuffle
from ciscribe.train.metrics import pearson
from ciscribe.train.sequence_baselines import fit_gbm

NAMES = ("E. coli, 150 bp", "plant leaf, 170 bp")
NETWORK = {"channels": 64, "n_layers": 4}
PLANS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "autoregressive": (NETWORK, {"epochs": 15}), "masked_diffusion": (NETWORK, {"epochs": 30}),
    "dirichlet_flow": (NETWORK, {"epochs": 30}), "wgan": ({"channels": 16}, {"epochs": 40})}
N_SAMPLES, N_SEEDS = 300, 2
REAL = "real, of neither half"
_ORDER = 5  # of the Markov chain


@dataclass(frozen=True, eq=False)
class Half:
    """Sequences and activities of some folds."""

    codes: UInt8[ndarray, "N L"]
    y: Float[ndarray, " N"]


@dataclass(frozen=True, eq=False)
class Task:
    """What generators learn from, who judges them, and what is real."""

    name: str
    train: Half
    valid: Half
    held: Half
    judge: Callable[[UInt8[ndarray, "n L"]], Float[ndarray, " n"]]


def prepare(name: str) -> Task:
    """Read a data set, cut it as the league does, and fit the judge to the other half."""
    data, native = read(ASSAYS[name])
    y = data.targets[:, 0].astype(float)
    fold = grouped_folds(similarity_groups(data.codes), N_FOLDS, seed=0, stratify=data.targets[:, 0])

    def part(first: int, end: int) -> Half:
        rows = (fold >= first) & (fold < end) & native
        return Half(data.codes[rows], y[rows])

    other, check = part(5, 9), part(9, 10)
    trees = fit_gbm(other.codes, other.y[:, None], check.codes, check.y[:, None], k=5)
    return Task(name, part(0, 4), part(4, 5), part(10, 11), lambda codes: trees.predict(codes)[:, 0].astype(float))


# Controls: what needs no network


def markov(codes: UInt8[ndarray, "N L"], n: int, seed: int) -> UInt8[ndarray, "n L"]:
    """Draw from a chain of order 5; first bases are those of sequences that it was fitted to."""
    rng, step = np.random.default_rng(seed), np.exp(MarkovChain.fit(codes).log_probability).reshape(-1, 4)
    made = codes[rng.integers(len(codes), size=n)].copy()
    for i in range(_ORDER, codes.shape[1]):
        word = made[:, i - _ORDER:i].astype(int) @ 4**np.arange(_ORDER)[::-1]
        made[:, i] = (step[word].cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=3)
    return made


def shuffled(codes: UInt8[ndarray, "N L"], n: int, seed: int) -> UInt8[ndarray, "n L"]:
    """Sequences with their dinucleotides in another order."""
    rows = np.random.default_rng(seed).choice(len(codes), n)
    return np.stack([dinucleotide_shuffle(codes[row], seed=seed * n + i)[0] for i, row in enumerate(rows)])


# Numbers


def measured(task: Task) -> tuple[pd.DataFrame, dict[str, float]]:
    """A row a generator, control and seed of the sampling; bits a base of the likelihoods on held-out sequences."""
    length = task.train.codes.shape[1]
    both = Half(np.concatenate([task.train.codes, task.valid.codes]), np.concatenate([task.train.y, task.valid.y]))
    valid = np.arange(len(both.y)) >= len(task.train.y)
    fitted, fit_seconds = {}, {}
    bits = {"chain of order 5": -MarkovChain.fit(both.codes).loglik(task.held.codes).mean() / np.log(2)}
    for name, (size, plan) in PLANS.items():
        begun = time.process_time()
        fitted[name] = GENERATORS[name](length, **size).fit(both.codes, both.y, valid=valid, **plan)
        fit_seconds[name] = time.process_time() - begun
        print(f"{task.name}: {name} fitted in {fit_seconds[name]:.0f} s of CPU", flush=True)
        if (found := fitted[name].loglik(task.held.codes)) is not None:
            bits[name] = -found.mean() / length / np.log(2)
    levels = fitted["autoregressive"].levels[0].numpy()  # labels are quantiles of the same activities for all

    def level_of(y: ndarray) -> ndarray:
        return levels[fitted["autoregressive"].wanted(y, len(y))[:, 0].numpy()]

    asked = np.resize(levels[np.isfinite(levels)], N_SAMPLES)
    of_train = level_of(both.y)

    def imitated(make: Callable[[ndarray, int, int], ndarray], seed: int) -> ndarray:
        """A control, made from the training sequences of each level."""
        made = np.zeros((N_SAMPLES, length), np.uint8)
        for level in np.unique(asked):
            made[asked == level] = make(both.codes[of_train == level], int((asked == level).sum()), seed)
        return made

    makers: dict[str, Callable[[int], ndarray]] = {
        name: lambda seed, made=made: made.sample(N_SAMPLES, y=asked, seed=seed) for name, made in fitted.items()}
    makers |= {"chain of order 5": partial(imitated, markov), "shuffled dinucleotides": partial(imitated, shuffled)}
    rows, real_r = [], pearson(level_of(task.held.y), task.judge(task.held.codes))
    for name, make in makers.items():
        for seed in range(N_SEEDS):
            begun = time.process_time()
            made = make(seed)
            seconds = 1_000 / N_SAMPLES * (time.process_time() - begun)
            found = generator_numbers(made, both.codes, task.held.codes, asked=asked, judge=task.judge, seed=seed)
            rows.append({"generator": name, "fit": fit_seconds.get(name, np.nan), "draw": seconds}
                        | found["generated"].to_dict())
            print(f"{task.name}: {rows[-1]}", flush=True)
            if name == "autoregressive":  # real ones are the same beside all
                rows.append({"generator": REAL} | found["real"].to_dict() | {"fidelity_r": real_r})
    return pd.DataFrame(rows), bits


def section(task: Task) -> str:
    """One data set."""
    table, bits = measured(task)
    mean = table.groupby("generator", sort=False).mean()
    order = [REAL, *(name for name in mean.index if name != REAL)]

    def of(name: str, column: str, digits: int) -> str:
        value = float(mean.loc[name, column])  # type: ignore[arg-type]
        return "–" if np.isnan(value) else f"{value:,.{digits}f}"

    rows = [[name, *(f"{of(name, f'js_{k}', 4)} ({mean.loc[name, f'js_{k}'] / mean.loc[REAL, f'js_{k}']:.2f}×)"
                     for k in (3, 4, 6)),
             of(name, "separability", 2), of(name, "fidelity_r", 2), of(name, "longest_match", 0),
             of(name, "copies", 3), of(name, "uniqueness", 3), of(name, "fit", 0), of(name, "draw", 0)]
            for name in order]
    return "\n".join([
        f"### {task.name}", "",
        f"{len(task.train.y):,} sequences to fit ({len(task.valid.y):,} more choose the epoch), {len(task.held.y):,} "
        f"real ones of neither half; the judge's r with their labels is "
        f"{pearson(task.judge(task.held.codes), task.held.y):.2f}.", "",
        markdown(["generator", "JS of 3-mers", "4-mers", "6-mers", "separability", "fidelity r", "longest match, bp",
                  "copies", "unique", "fit, CPU s", "1,000 samples, CPU s"], rows), "",
        "Bits a base of real sequences of neither half: " + ", ".join(
            f"{name} {value:.3f}{' (a bound)' if name == 'masked_diffusion' else ''}" for name, value in bits.items())
        + "; even bases 2. No label is given; flow and WGAN have no likelihood.", ""])


def page(names: Sequence[str] = NAMES) -> str:
    """Section of the page, in Markdown."""
    torch.set_num_threads(1)
    sizes = ", ".join(f"{name} {' × '.join(map(str, size.values()))} ({plan['epochs']} epochs)"
                      for name, (size, plan) in PLANS.items())
    return "\n".join([
        "## Generators (track D)", "",
        f"Fitted to one half of the groups of similar sequences, with activities; {N_SAMPLES} samples, as many of each "
        f"of five levels of activity, mean of {N_SEEDS} draws. JS: Jensen–Shannon divergence of words from those of "
        "real sequences of neither half, bits, and how many times that of as many other real ones. Separability: AUROC "
        "of a classifier of 4-mers, ½ is best. Fidelity: correlation of the level that was asked with what a judge "
        "says (trees on k-mers, fitted to the other half); of real ones, with the level of their label. Longest match "
        "with a training sequence: median. Controls are made from the training sequences of the level that is asked. "
        f"Small networks, channels × layers, as they fit a CPU: {sizes}; all else are defaults.", "",
        *(section(prepare(name)) for name in names)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", nargs="+", default=list(NAMES), choices=list(NAMES))
    print(page(parser.parse_args().names))
