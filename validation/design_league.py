"""Designers at equal budgets (track B), on three reporter assays.

``python validation/design.py league [--write]``, or this file alone. Needs the public data sets (CISCRIBE_DATA names
their folder). Models and runs are kept under ``--folder``; what is there is not made again.

Designers are asked by a small network that was trained on one half of the groups of similar sequences, and judged by
models of other families that were trained on the other half. Starts are weak natural sequences of neither half. No
option of any designer was chosen here: all are defaults of the package.
"""

import argparse
import copy
import math
import os
import pickle
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as kept
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from ciscribe.config import AssayConfig, AssayTrainConfig
from ciscribe.data.reporter import ReporterSet
from ciscribe.data.similarity import grouped_folds, similarity_groups
from ciscribe.design.benchmark import league
from ciscribe.design.constraints import GC, Avoid, Constraints, Homopolymer
from ciscribe.design.generators import GENERATORS, Generator
from ciscribe.design.natives import kmer_correlation
from ciscribe.design.objective import Maximize
from ciscribe.design.runner import design
from ciscribe.errors import ConfigError
from ciscribe.oracle import Oracle
from ciscribe.provenance import atomic_path
from ciscribe.sequence import codes_of, decode, encode, one_hot_tensor
from ciscribe.train.metrics import pearson, spearman
from ciscribe.train.sequence_baselines import fit_gbm
from ciscribe.workflow.designers import load_generator, save_generator
from ciscribe.workflow.reporter import build_model, fit_assay, read_assay

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("CISCRIBE_DATA", HERE.parent.parent / "shared" / "data"))
FOLDER = HERE.parent / "runs" / "validation_design"
YEAST = {"sequence": "seq110", "activity": "meanEL", "duplicates": "mean"}
LEFT, RIGHT = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"  # of the yeast promoter around the 80 bp that vary
ENZYMES = ("BsaI", "BbsI", "BsmBI", "SapI")
RULES = (*(Avoid(name) for name in ENZYMES), Homopolymer(6), GC(0.3, 0.65))
PLAN = {"batch_size": 64, "learning_rate": 0.002, "weight_decay": 0.01, "average": 0.99, "patience": 6, "n_threads": 1}
N_FOLDS = 11  # 0-3 and 5-8 are trained on, 4 and 9 choose the epoch, 10 gives starts and test figures
N_STARTS = N_DESIGNS = 16
BUDGETS = {5_000: 5}
"""Model calls, and seeds of each."""

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "screen": ("screen", {}), "drift": ("drift", {}), "greedy": ("greedy", {}), "beam 4": ("greedy", {"beam": 4}),
    "sswm": ("sswm", {}), "anneal": ("anneal", {}), "genetic": ("genetic", {}), "adalead": ("adalead", {}),
    "seqprop": ("seqprop", {}), "edit": ("edit", {}),
    "edit, cheap": ("edit", {"penalty": 0.01}),  # an edit: about what Ledidi's defaults come to
    "sample": ("sample", {}), "reinforce": ("reinforce", {}), "grpo": ("grpo", {}), "drakes": ("drakes", {}),
    "latent": ("latent", {})}
NETWORK, LABELS = {"channels": 64, "n_layers": 4}, 5
LEARNED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    **{name: ("autoregressive", NETWORK, {"epochs": 15}) for name in ("sample", "reinforce", "grpo")},
    "drakes": ("masked_diffusion", NETWORK, {"epochs": 15}),
    "latent": ("wgan", {"channels": 16}, {"epochs": 20})}
"""Designers that begin from a generator: which, its size, and how it is fitted to the half of the oracle."""
PLAIN = tuple(name for name in METHODS if name not in LEARNED)


@dataclass(frozen=True)
class Assay:
    """Where the sequences are, and how the three models are trained."""

    tables: tuple[dict[str, Any], ...]
    train: dict[str, Any]
    flanks: tuple[str, str] = ("", "")
    """Constant ends of every sequence of the table; what lies between is designed."""


ASSAYS = {
    "E. coli, 150 bp": Assay(
        ({"path": "mpra/ecoli_150bp/train_genome_split.txt.gz", "columns": ["sequence", "activity"],
          "duplicates": "mean", "log": "log2", "floor": 0.0, "pseudocount": 0.1},),
        {"epochs": 10, "augment": {"mutation": 0.1, "shift": 5}}),
    "yeast, 80 bp": Assay(
        ({"path": "mpra/yeast/Native_testdata_defined_media.csv.gz"} | YEAST,
         {"path": "mpra/yeast/Random_defined.csv.gz"} | YEAST),
        {"epochs": 12}, (LEFT, RIGHT)),
    "plant leaf, 170 bp": Assay(
        ({"path": "mpra/plant/CNN_test_leaf.tsv.gz", "activity": "enrichment"},),
        {"epochs": 16, "augment": {"mutation": 0.05, "shift": 8}}),
}


@dataclass(frozen=True, eq=False)
class Field:
    """A data set made ready: who is asked, who judges, and from what designs start."""

    name: str
    model: nn.Module
    judges: dict[str, Callable[[ndarray], ndarray]]
    flanks: tuple[str, str]
    natives: UInt8[ndarray, "N L"]
    """Of neither half, those that vary between the flanks."""
    top: UInt8[ndarray, "M L"]
    """The hundredth of all sequences with the highest labels."""
    labels: Float[ndarray, " n"]
    """Of the half of the oracle."""
    highest: dict[str, float]
    """Highest label of the half of the oracle and of that of the judges."""
    accuracy: dict[str, float]
    """Pearson's r on the sequences of neither half."""
    folder: Path = FOLDER
    """Where fitted generators are kept."""
    learned: tuple[UInt8[ndarray, "n L"], Float[ndarray, " n"]] | None = None
    """What the oracle was trained on between the flanks, and its labels: what generators are fitted to."""
    generators: dict[str, Generator] = kept(default_factory=dict)
    """Fitted once each."""

    @property
    def oracle(self) -> Oracle:
        """The model that designers may ask."""
        return Oracle(self.model, device="cpu")

    @property
    def constraints(self) -> Constraints:
        """What a design keeps; near the junctions, words may not arise from the flanks either."""
        return Constraints(RULES, flanks=(self.flanks[0][-9:], self.flanks[1][:9]), length=self.natives.shape[1])

    def generator(self, designer: str) -> Generator:
        """What a designer begins from, fitted at the first call."""
        name, size, plan = LEARNED[designer]
        if self.learned is None:
            raise ConfigError(f"{designer} begins from a generator; {self.name} has nothing to fit one to")
        if name not in self.generators:
            at = self.folder / name
            if not at.exists():
                codes, y = self.learned
                begun = time.process_time()
                made = GENERATORS[name](codes.shape[1], n_labels=LABELS, **size).fit(codes, y, **plan)
                save_generator(at, made, {"fit": plan, "seconds": time.process_time() - begun})
                print(f"{self.name}: {name} in {time.process_time() - begun:.0f} s of CPU", flush=True)
            self.generators[name] = load_generator(at)[0]
        return self.generators[name]

    def options(self, method: str) -> dict[str, Any]:
        """What a designer is given beside its defaults."""
        if method == "edit":
            return {"label_sd": float(self.labels.std())}
        if method == "latent":
            return {"generator": self.generator(method)}
        if method in LEARNED and self.learned is not None:  # of the highest activities
            return {"generator": self.generator(method), "y": float(self.learned[1].max())}
        return {}

    def whole(self, codes: UInt8[ndarray, "n L"]) -> UInt8[ndarray, "n M"]:
        """With flanks, as the models read them."""
        left, right = (np.tile(encode(flank), (len(codes), 1)) for flank in self.flanks)
        return np.concatenate([left, codes, right], axis=1).astype(np.uint8)

    def predict(self, codes: UInt8[ndarray, "n L"]) -> Float[ndarray, " n"]:
        """What the oracle says."""
        return self.oracle.predict(torch.from_numpy(self.whole(codes)), batch_size=256)[:, 0].double().numpy()

    def judge(self, codes: UInt8[ndarray, "n L"]) -> dict[str, Float[ndarray, " n"]]:
        """What each judge says."""
        return {name: ask(self.whole(codes)) for name, ask in self.judges.items()}


# Models


def read(assay: Assay) -> tuple[ReporterSet, ndarray]:
    """All sequences of an assay with every base known, and whether each comes from the first table (the natives)."""
    sets = [read_assay(AssayConfig(**table), DATA) for table in assay.tables]
    length = max(part.codes.shape[1] for part in sets)
    codes = np.concatenate([part.codes for part in sets if part.codes.shape[1] == length])
    targets = np.concatenate([part.targets for part in sets])
    table = pd.concat([part.table[["name", "sequence"]] for part in sets], ignore_index=True)
    native = np.repeat(np.arange(len(sets)) == 0, [len(part) for part in sets])
    known = (codes < 4).all(axis=1) & np.isfinite(targets[:, 0])
    for flank, at in zip(assay.flanks, (slice(None, len(assay.flanks[0])), slice(length - len(assay.flanks[1]), None)),
                         strict=True):
        known &= (codes[:, at] == encode(flank)).all(axis=1)
    return ReporterSet(table, codes, targets, ("activity",)).take(known), native[known]


def trained(assay: Assay, data: ReporterSet, halves: list[dict[str, ndarray]]) -> tuple[nn.Module, nn.Module, Any]:
    """The oracle of the first half of the data, and the network and the trees that judge, of the second."""
    plan, length = AssayTrainConfig(**(PLAN | assay.train)), data.codes.shape[1]
    nets = []
    for rows, (model, arguments) in zip(halves, (("deepstarr", {"filters": (48, 32, 32, 48), "hidden": 64}),
                                                 ("danq", {"filters": 32, "lstm": 32, "hidden": 64})), strict=True):
        torch.manual_seed(0)
        net, _ = build_model(model, 1, length, arguments=arguments)
        nets.append(fit_assay(net, data, rows, "regression", plan)[0].eval())
    rows = halves[1]
    trees = fit_gbm(data.codes[rows["train"]], data.targets[rows["train"]], data.codes[rows["valid"]],
                    data.targets[rows["valid"]], k=5)
    return nets[0], nets[1], trees


def prepare(name: str, folder: Path) -> Field:
    """Read a data set, and its models; train them unless they are there."""
    assay = ASSAYS[name]
    data, native = read(assay)
    y = data.targets[:, 0]
    fold = grouped_folds(similarity_groups(data.codes), N_FOLDS, seed=0, stratify=y)
    halves = [{"train": np.flatnonzero((fold >= i) & (fold < i + 4)), "valid": np.flatnonzero(fold == i + 4)}
              for i in (0, 5)]
    at = folder / name
    if not (at / "models.pickle").exists():
        at.mkdir(parents=True, exist_ok=True)
        begun = time.perf_counter()
        with atomic_path(at / "models.pickle") as path:
            path.write_bytes(pickle.dumps(trained(assay, data, halves)))
        print(f"{name}: models in {time.perf_counter() - begun:.0f} s", flush=True)
    net, other, trees = pickle.loads((at / "models.pickle").read_bytes())
    judge = Oracle(other, device="cpu")
    judges = {"gbm_kmers": lambda codes: trees.predict(codes)[:, 0].astype(float),
              "danq": lambda codes: judge.predict(torch.from_numpy(codes), batch_size=256)[:, 0].double().numpy()}
    inside = slice(len(assay.flanks[0]), data.codes.shape[1] - len(assay.flanks[1]))
    held = np.flatnonzero((fold == N_FOLDS - 1) & native)
    said = {"oracle": Oracle(net, device="cpu").predict(torch.from_numpy(data.codes[held]))[:, 0].numpy()}
    said |= {who: ask(data.codes[held]) for who, ask in judges.items()}
    best = np.argsort(-y, kind="stable")[:max(20, len(y) // 100)]
    used = [np.concatenate(list(half.values())) for half in halves]
    return Field(name, net, judges, assay.flanks, data.codes[held, inside], data.codes[best, inside], y[used[0]],
                 {"oracle": float(y[used[0]].max()), "judges": float(y[used[1]].max())},
                 {who: pearson(values.astype(float), y[held].astype(float)) for who, values in said.items()},
                 at, (data.codes[halves[0]["train"], inside], y[halves[0]["train"]].astype(float)))


def weak_starts(field: Field, seed: int) -> UInt8[ndarray, "S L"]:
    """Some of the natives of neither half that the oracle says least of, mended where they break a rule."""
    order = np.argsort(field.predict(field.natives), kind="stable")
    pool = field.natives[order[:max(N_STARTS, len(order) // 4)]]
    rows = np.random.default_rng(seed).choice(len(pool), N_STARTS, replace=False)
    return field.constraints.repair(pool[rows])[0]


# Other programs, unmodified


class Counted(nn.Module):
    """A model that counts what it is asked, and puts the flanks on; a gradient costs as much as two sequences."""

    def __init__(self, field: Field):
        super().__init__()
        self.model, self.n = copy.deepcopy(field.model).eval(), 0
        left, right = (one_hot_tensor(torch.from_numpy(encode(flank)[None])) for flank in field.flanks)
        self.register_buffer("left", left)
        self.register_buffer("right", right)

    def forward(self, X: Tensor) -> Tensor:
        """What the model says."""
        self.n += len(X) * (2 if torch.is_grad_enabled() and X.requires_grad else 1)
        return self.model(torch.cat([self.left.expand(len(X), -1, -1), X.float(),
                                     self.right.expand(len(X), -1, -1)], dim=2))


def tangermeme_greedy(model: Counted, starts: ndarray, budget: int, seed: int) -> ndarray:
    """``greedy_substitution`` of one start after the other, as many rounds as the budget pays for all."""
    rounds = paid_rounds(starts, budget, 1, 4 * starts.shape[1])
    greedy = import_module("tangermeme.design").greedy_substitution
    made = [greedy(model, one_hot_tensor(torch.from_numpy(start[None])), max_iter=rounds, batch_size=256, device="cpu")
            for start in starts]
    return codes_of(torch.cat(made))


def tangermeme_screen(model: Counted, starts: ndarray, budget: int, seed: int, level: float = 0.0) -> ndarray:
    """``screen`` of random sequences towards a level; starts are not used."""
    screen = import_module("tangermeme.design").screen
    made = screen(model, (4, starts.shape[1]), torch.tensor([[level]]), lambda y, said: (y - said)**2, tol=-math.inf,
                  max_iter=budget // 250, n_best=N_DESIGNS, batch_size=250, device="cpu", random_state=1_000 * seed)
    return codes_of(made)


def ledidi_edit(model: Counted, starts: ndarray, budget: int, seed: int, level: float = 0.0) -> ndarray:
    """``ledidi`` towards a level, one start after the other; of the batch that it returns, the highest prediction."""
    ledidi = import_module("ledidi").ledidi
    steps = (budget // len(starts) - 17) // 32  # of 16 sequences and their gradients; 17 before and after
    made = []
    for i, start in enumerate(starts):
        X = one_hot_tensor(torch.from_numpy(start[None]))
        y = torch.tensor([[level]])
        batch = ledidi(model, X, y, device="cpu", random_state=1_000 * seed + i, verbose=False, max_iter=steps).detach()
        with torch.no_grad():
            miss = (model(batch) - y).abs()[:, 0]
        made.append(batch[miss.argmin()])
    return codes_of(torch.stack(made).round())


class Answers:
    """A counted model as gReLU's and CREsted's evolution ask theirs."""

    def __init__(self, model: Counted, length: int):
        self.model, self.input_shape = model, (None, length, 4)

    @torch.no_grad()
    def predict(self, X: ndarray, verbose: bool = False) -> ndarray:
        """What is said of one-hot sequences ``(n, L, 4)``: how CREsted asks."""
        parts = torch.from_numpy(X).transpose(1, 2).split(256)
        return torch.cat([self.model(part) for part in parts]).numpy()

    def predict_on_dataset(self, dataset: Any, **loading: Any) -> ndarray:
        """What is said of the one-hot sequences ``(4, L)`` of a data set: how gReLU asks."""
        return self.predict(torch.stack([dataset[i] for i in range(len(dataset))]).transpose(1, 2).numpy())

    def add_transform(self, transform: None) -> None:
        """Answers stay as they are."""

    def reset_transform(self) -> None:
        """They still do."""


def paid_rounds(starts: ndarray, budget: int, before: int, a_round: int) -> int:
    """Rounds that the budget pays for all starts; what a start costs before them, and in each."""
    rounds = (budget // len(starts) - before) // a_round
    if rounds < 1:
        raise ConfigError("a round of all starts costs more than the budget")
    return rounds


def grelu_evolve(model: Counted, starts: ndarray, budget: int, seed: int) -> ndarray:
    """``evolve`` by single substitutions, all starts together; of each the best sequence of all rounds."""
    rounds = paid_rounds(starts, budget, 1, 3 * starts.shape[1])
    evolve = import_module("grelu.design").evolve
    with patch.object(np, "Inf", np.inf, create=True):  # which its release 1.1.0 reads, and NumPy 2 has no more
        found = evolve([decode(start) for start in starts], Answers(model, starts.shape[1]), max_iter=rounds,
                       return_seqs="best", return_preds=False, verbose=False)
    found = found[found["best_in_iter"]].reset_index(drop=True)
    return np.stack([encode(text) for text in found.loc[found.groupby("start_seq")["total_score"].idxmax(), "seq"]])


def crested_evolution(model: Counted, starts: ndarray, budget: int, seed: int) -> ndarray:
    """``in_silico_evolution``, all starts together; every round takes the best substitution, also a bad one."""
    rounds = paid_rounds(starts, budget, 0, 1 + 3 * starts.shape[1])
    os.environ.setdefault("KERAS_BACKEND", "torch")  # it asks no network of Keras here, and imports it
    made = import_module("crested.tl.design").in_silico_evolution(
        rounds, 0, Answers(model, starts.shape[1]), starting_sequences=[decode(start) for start in starts])
    return np.stack([encode(text) for text in made])


GREEDY, GRELU, CRESTED = "tangermeme greedy_substitution", "gReLU evolve", "CREsted in_silico_evolution"
PROGRAMS: dict[str, tuple[str, Callable[..., ndarray]]] = {
    GREEDY: ("tangermeme", tangermeme_greedy), "tangermeme screen": ("tangermeme", tangermeme_screen),
    "ledidi": ("ledidi", ledidi_edit), GRELU: ("grelu", grelu_evolve), CRESTED: ("crested", crested_evolution)}
"""Rows of other programs: the package that each needs, and how it is run."""


def others(field: Field) -> dict[str, Callable[[Counted, ndarray, int, int], ndarray]]:
    """Installed programs; those that go towards a level are given the highest label."""
    level = {"level": field.highest["oracle"]}
    return {name: partial(run, **level) if run in (tangermeme_screen, ledidi_edit) else run
            for name, (package, run) in PROGRAMS.items() if find_spec(package) is not None}


def say_missing() -> None:
    """Say which programs are left out."""
    for package in sorted({package for package, _ in PROGRAMS.values() if find_spec(package) is None}):
        print(f"{package} is not installed: its rows are left out", flush=True)


# Track B


def measured(field: Field, starts: ndarray, codes: ndarray, origin: ndarray | None, queries: int, seconds: float
             ) -> dict[str, float]:
    """Figures of the designs of one run; without origin, gains are over the mean of the starts."""
    def gains(after: ndarray, before: ndarray) -> ndarray:
        return after - (before.mean() if origin is None else before[origin])

    said, judged, before, allowed = field.predict(codes), field.judge(codes), field.judge(starts), field.constraints.ok(
        codes)
    each = {name: gains(judged[name], before[name]) for name in judged}
    mean = np.mean(list(each.values()), axis=0)
    differ = codes[:, None] != (starts[None] if origin is None else starts[origin][:, None])
    row = {"gain": gains(said, field.predict(starts)).mean(), "score": said.mean(),
           **{f"gain_{name}": values.mean() for name, values in each.items()},
           "as_returned": mean.mean(), "judge_gain": (mean * allowed).mean(),
           "judge_score": max(values.mean() for values in judged.values()),  # of the judge that says most
           "edits": differ.sum(axis=2).mean(), "kmer_r": kmer_correlation(codes, field.top),
           "feasible": allowed.mean(), "n": len(codes), "queries": queries, "seconds": seconds}
    return {name: float(value) for name, value in row.items()}


def ours(field: Field, name: str, starts: ndarray, budget: int, seed: int, clip: bool) -> dict[str, float]:
    """One run of one of our designers."""
    method, options = METHODS[name]
    options = options | field.options(method)
    objective = Maximize(field.oracle, flanks=field.flanks)
    begins = name != "latent"  # which takes its sequences from a generator
    made = design(objective.clip(high=field.highest["oracle"]) if clip else objective, starts if begins else None,
                  method, constraints=field.constraints, n=N_DESIGNS, budget=budget, seed=seed,
                  length=None if begins else starts.shape[1], **options)
    row = measured(field, starts, made.codes, made.origin if begins else None, made.queries, made.seconds)
    return row | {"best": float(made.score.max())}


def theirs(field: Field, name: str, tool: Callable[..., ndarray], starts: ndarray, budget: int, seed: int
           ) -> list[dict[str, Any]]:
    """One run of another program: what it returns, and the same mended with the fewest edits."""
    begun, model = time.perf_counter(), Counted(field)
    torch.manual_seed(seed)
    codes = tool(model, starts, budget, seed)
    seconds, origin = time.perf_counter() - begun, np.arange(len(starts)) if len(codes) == len(starts) else None
    mended = field.constraints.repair(codes)[0]
    return [measured(field, starts, made, origin, model.n, seconds) | {"method": title, "best": math.nan}
            for title, made in ((name, codes), (f"{name}, repaired", mended))]


class Ledger:
    """Rows that are kept on disk as they come."""

    def __init__(self, path: Path):
        self.path = path
        self.rows = pd.read_csv(path).to_dict("records") if path.exists() else []

    def has(self, **key: Any) -> bool:
        """Whether there is such a row."""
        return any(all(row[k] == v for k, v in key.items()) for row in self.rows)

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Keep rows."""
        self.rows += rows
        pd.DataFrame(self.rows).to_csv(self.path, index=False)

    @property
    def table(self) -> pd.DataFrame:
        """All rows."""
        return pd.DataFrame(self.rows)


def run_league(fields: list[Field], folder: Path, budgets: Mapping[int, int], names: Sequence[str] = PLAIN
               ) -> pd.DataFrame:
    """Rows of these designers and of all other programs, made unless they are there; a seed has its own starts."""
    ledger = Ledger(folder / "league.csv")
    for budget, seeds in budgets.items():
        for seed in range(seeds):
            for field in fields:
                starts = weak_starts(field, seed)
                for name in (*names, *others(field)):
                    key = {"dataset": field.name, "method": name, "budget": budget, "seed": seed}
                    if ledger.has(**key):
                        continue
                    try:
                        if name in METHODS:
                            rows = [ours(field, name, starts, budget, seed, False)]
                            if rows[0]["best"] > field.highest["oracle"]:  # else clipping changes nothing
                                rows.append(ours(field, name, starts, budget, seed, True) | {"method": f"{name}, clip"})
                        else:
                            rows = theirs(field, name, others(field)[name], starts, budget, seed)
                    except ConfigError as error:
                        rows = [{"error": str(error)}]
                    ledger.add([key | row for row in rows])
    table, named = ledger.table, ledger.table["method"].str.removesuffix(", clip").str.removesuffix(", repaired")
    wanted = (named.isin([*names, *PROGRAMS]) & (table["seed"] < table["budget"].map(budgets))
              & table["dataset"].isin([field.name for field in fields]))
    return table[wanted].reset_index(drop=True)


# The page


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Table, numbers to the right."""
    return "\n".join(["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|",
                      *("| " + " | ".join(row) + " |" for row in rows)])


def figure(row: pd.Series, name: str, digits: int, limits: str = "", sign: str = "") -> str:
    """A number with its interval, where there are seeds enough for one."""
    low, high = row[f"{limits or name}_low"], row[f"{limits or name}_high"]
    text = f"{row[name]:{sign}.{digits}f}"
    return text if np.isnan(low) else f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"


def of_field(field: Field, table: pd.DataFrame, budget: int) -> str:
    """Rows of one data set and budget, best first."""
    part = table[(table["dataset"] == field.name) & (table["budget"] == budget)]
    header = ["designer", "rank", "judged gain / 1,000 queries", "judged gain", "as returned",
              *(f"by {name}" for name in field.judges), "oracle gain", "inflation", "edits", "4-mer r",
              "feasible", "queries", "s", "seeds"]
    rows = []
    for _, r in part.iterrows():
        rank = "extrapolating" if np.isnan(r["rank"]) else f"{r['rank']:.0f}"
        rows.append([r["method"], rank,
                     figure(r, "per_thousand", 3), figure(r, "judge_gain", 2, "judge"),
                     f"{r['as_returned']:.2f}",
                     *(f"{r[f'gain_{name}']:.2f}" for name in field.judges), f"{r['gain']:.2f}",
                     "–" if r["gain"] <= 0 else f"{1 - r['as_returned'] / r['gain']:.2f}",
                     f"{r['edits']:.0f}",
                     f"{r['kmer_r']:.2f}", f"{r['feasible']:.3f}", f"{r['queries']:,.0f}", f"{r['seconds']:.1f}",
                     f"{r['seeds']:.0f}"])
    return markdown(header, rows)


def verdicts(done: pd.DataFrame, highest: dict[str, float]) -> list[str]:
    """Of each data set and budget the best of ours and of the other programs, and how far apart they are."""
    lines = []
    for (dataset, budget), runs in done.groupby(["dataset", "budget"], sort=False):
        table = league(runs, highest)
        ranked = table[table["rank"].notna()]
        is_ours = ranked["method"].str.removesuffix(", clip").isin(list(METHODS))
        best = [rows.iloc[0] for rows in (ranked[is_ours], ranked[~is_ours]) if len(rows)]
        said = [f"{r['method']} {figure(r, 'per_thousand', 3)} ({r['feasible']:.0%} feasible)" for r in best]
        lines.append(f"- {dataset}, {budget:,} queries: of ours {said[0]}"
                     + (f"; of the others {said[1]}" if len(said) > 1 else "") + ".")
        if len(best) > 1:
            ahead = league(runs[runs["method"].isin([r["method"] for r in best])], highest).iloc[0]
            lines[-1] += f" First is **{ahead['method']}**, by {figure(ahead, 'lead', 3, sign='+')} (paired seeds)."
        as_is = table[~table["method"].str.removesuffix(", clip").isin(list(METHODS)) & (table["feasible"] < 1)]
        if len(as_is):
            top = as_is.loc[as_is["as_returned"].idxmax()]
            lines[-1] += (f" If designs that break a rule counted, {top['method']} would have "
                          f"{1000 * top['as_returned'] / top['queries']:.3f} ({top['feasible']:.0%} feasible).")
    return lines


def page(folder: Path = FOLDER, budgets: Mapping[int, int] = BUDGETS) -> str:
    """Section of `validation/design.md`."""
    fields = prepared(folder)
    return league_text(fields, run_league(fields, folder, budgets))


def prepared(folder: Path) -> list[Field]:
    """All data sets, made ready."""
    torch.set_num_threads(1)
    say_missing()
    return [prepare(name, folder) for name in ASSAYS]


def league_text(fields: list[Field], runs: pd.DataFrame) -> str:
    """Track B."""
    errors = runs[runs["error"].notna()] if "error" in runs else runs.iloc[:0]
    done = runs[runs["gain"].notna()].drop(columns=["error", "best"], errors="ignore")
    highest = {field.name: field.highest["judges"] for field in fields}
    table = league(done, highest)
    agreement = [f"{dataset}, {budget:,}: "
                 f"{spearman(*(part[f'gain_{name}'].to_numpy() for name in fields[0].judges)):.2f}"
                 for (dataset, budget), part in table.groupby(["dataset", "budget"], sort=False)]
    own = done[done["method"].str.removesuffix(", clip").isin(list(METHODS))]
    parts = ["## Equal budgets (track B)", "",
             f"Each run: {N_STARTS} weak natural sequences that neither half of the data holds (from the quarter of "
             f"which the oracle says least; mended where they break a rule), at most {N_DESIGNS} designs, the best of "
             "every start first. A seed is that of the designer and of the draw of the starts; intervals are over "
             "seeds (95 %, Student). Rules: no site of " + ", ".join(ENZYMES) + " on either strand, no run longer than "
             "6, GC 0.30 to 0.65; in yeast, whose scaffold is known, sites and runs across the junctions count. A "
             "gradient costs two queries. The oracle is a small DeepSTARR trained on one half of the groups of similar "
             "sequences; judges are trees on k-mers and a DanQ (a recurrent network) trained on the other half. Gains "
             "are in the units of the labels, log2 for E. coli and plants, bins of the sorter for yeast. A design that "
             "breaks a rule cannot be ordered, and its judged gain counts as 0; `as returned` counts it. Inflation is "
             "1 − judged gain as returned / oracle gain. 4-mer r is that with the hundredth of the sequences with the "
             "highest labels. `…, clip` stands where a run went above the highest label of the oracle's half; clipped "
             "there. Elsewhere clipping changes nothing, and the row is that of both lines. `extrapolating`: by at "
             "least one judge the mean of the designs lies above its highest label in most runs; not counted as gain.",
             "", "Options are the defaults. `edit, cheap` has a tenth of the default cost of an edit, about what "
             "Ledidi's defaults come to so far from a target; it was added when seed 0 of the other rows had been "
             "seen, with two other settings of seqprop that are not kept. Designers that begin from a generator "
             "have a section of their own. implant and grammar need motifs: see the known world.", "",
             markdown(["data set", "oracle r", *(f"{name} r" for name in fields[0].judges), "SD of labels",
                       "highest label, judges' half", "natives of neither half"],
                      [[f.name, f"{f.accuracy['oracle']:.2f}", *(f"{f.accuracy[name]:.2f}" for name in f.judges),
                        f"{f.labels.std():.2f}", f"{f.highest['judges']:.2f}", f"{len(f.natives):,}"] for f in fields]),
             "", "r on natural sequences of neither half.", "", *verdicts(done, highest), "",
             f"Feasible without any filter, all {len(own)} runs of ours: {own['feasible'].min():.3f} at least. Rank "
             "correlation of the two judges over rows: " + "; ".join(agreement) + ".", ""]
    for field in fields:
        for budget in sorted(set(table["budget"])):
            parts += [f"### {field.name}, {budget:,} queries", "", of_field(field, table, budget), ""]
    if len(errors):
        parts += ["Not there, because one round of all starts costs more than the budget: " + "; ".join(
            f"{name} ({dataset}, {budget:,})" for dataset, name, budget in sorted(set(
                errors[["dataset", "method", "budget"]].itertuples(index=False, name=None)))) + ".", ""]
    parts += ["Other programs run as they are, behind a counter: tangermeme's greedy substitution for as many rounds "
              "as the budget pays for all starts (it cannot stop at a budget), one design a start; its screen, which "
              "takes no starts (gain is over their mean); Ledidi towards the highest label with its defaults, for as "
              "many steps as the budget pays, of the batch that it returns the best; the evolutions of gReLU and "
              "CREsted by single substitutions, which are greedy too and cannot stop at a budget either (gReLU's "
              "release 1.1.0 reads `np.Inf`, which NumPy 2 has no more and which is lent to it). None of them is told "
              "the constraints: `…, repaired` is the same designs mended with the "
              "fewest edits (`Constraints.repair`), which their users would have to do by other means."
              + "".join(f" Not installed, and so not there: {name}." for name, (package, _) in PROGRAMS.items()
                        if find_spec(package) is None), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seeds", type=int, default=None, help="of every budget")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS))
    given = parser.parse_args()
    print(page(given.folder, {budget: given.seeds or BUDGETS.get(budget, 3) for budget in given.budgets}))
