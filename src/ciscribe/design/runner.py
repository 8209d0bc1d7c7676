"""One runner for every designer: what is asked, what it costs, what is kept, and what made it.

Designers only propose and learn. The runner drops what is not allowed and what is known already, asks the objective
within the budget, keeps the best designs of every start, and leaves all models as they were.
"""

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray
from rich.progress import Progress
from torch import Tensor

from ciscribe.design.archive import Archive, Scores, is_first
from ciscribe.design.constraints import Constraints, Rule
from ciscribe.design.designer import Designer, Problem, Proposal
from ciscribe.design.designs import Designs, check_diversity, compile_rules, prune, score_proposal
from ciscribe.design.methods import make_designer
from ciscribe.design.score import Objective
from ciscribe.errors import ConfigError, SchemaError, UnsupportedError
from ciscribe.sequence import N, codes_of, encode

__all__ = ["Designs", "design", "prune"]

_POSITIONS = 2**19  # of sequences that are scored, and kept, together: what an interrupt can lose
_IDLE = 1_000  # rounds without anything new that end a run


def design(objective: Objective,
           start: Shaped[ndarray, "S ..."] | Shaped[Tensor, "S ..."] | Sequence[str] | None = None,
           method: str | type[Designer] = "greedy", *, length: int | None = None,
           constraints: Constraints | Sequence[Rule] = (), flanks: tuple[str, str] = ("", ""), n: int = 64,
           budget: int = 50_000, judge: Objective | None = None, infeasible: Literal["error", "repair"] = "error",
           patience: int | None = None, target: float | None = None, diversity: float = 0.0, batch_size: int = 256,
           seed: int = 0, progress: bool = False, **options: Any) -> Designs:
    """Design sequences that score high and keep every constraint, within a budget of model calls.

    Parameters
    ----------
    objective
        What is wanted.
    start
        Sequences to improve: letters, codes ``(S, L)`` or one-hot ``(S, 4, L)``. None designs from nothing.
    method
        Name of a designer (`ciscribe.design.methods.DESIGNERS`), or a class of your own.
    length
        Of the designs in bp, where there are no starts.
    constraints
        Rules that every design keeps, or compiled `Constraints`.
    flanks
        Constant bases on both sides in the construct: forbidden words may not arise at the junctions. What models read
        around a design is told to the objective.
    n
        Designs that are wanted. With starts, every start's best comes before the second of any.
    budget
        Most model calls, everything included: scoring a sequence costs `Objective.n_calls`, a gradient twice that. A
        sequence that was scored before is free.
    judge
        Scores the finished designs and their starts; never seen by the designer, not charged.
    infeasible
        Starts that break a constraint are an error, or are repaired with the fewest edits; edits and gains are counted
        from the start as it was given.
    patience
        Queries without any better design, of any start, after which to stop.
    target
        Stop as soon as all `n` designs score as much.
    diversity
        Share of positions in which any two designs of one start differ at least.
    batch_size
        Sequences a call of the model.
    seed
        The same seed makes the same designs.
    progress
        Show a bar.
    **options
        Of the designer.

    Returns
    -------
    Designs
        Also after an interrupt (Ctrl-C): what was found until then, ``attrs["stopped"]`` says so.

    Raises
    ------
    ConfigError
        For settings that cannot be used, such as a budget that does not pay for one round.
    SchemaError
        When the starts are no sequences, or break a constraint; when the objective gives NaN.
    UnsupportedError
        When the designer follows gradients and the objective has none.
    """
    begun = time.perf_counter()
    designer = make_designer(method, **options)
    if designer.needs_gradient and not objective.differentiable:
        raise UnsupportedError(f"{designer.card.name} follows the gradient of the objective, and this objective has "
                               "none; use one that asks for scores only: greedy, genetic, adalead or anneal")
    starts = None if start is None else read_starts(start)
    rules = compile_rules(constraints, flanks, length if starts is None else starts.shape[1], length)
    _check_settings(n, patience, diversity, batch_size, infeasible)
    allowed_starts, repaired = starts, 0
    if starts is not None:
        rules = rules.bind(starts)
        allowed_starts, repaired = _allowed(starts, rules, infeasible)
    run = _Run(objective, rules, rules.length or 0, starts, n, budget, batch_size, diversity)
    with objective.evaluating(), Progress(disable=not progress, transient=True) as bar:
        stopped = run.search(designer, allowed_starts, patience, target, np.random.default_rng(seed), bar)
        found = run.finish(n)
    judged = judged_starts = None
    if judge is not None:
        with judge.evaluating():
            judged = score_proposal(judge, Proposal(found["codes"], found["origin"]), batch_size)
            judged_starts = None if starts is None else score_proposal(judge, Proposal(starts, np.arange(len(starts))),
                                                              batch_size)
    attrs = {"method": designer.card.name, "options": options, "budget": budget, "stopped": stopped,
             "repaired": repaired, "judge_queries": 0 if judge is None else judge.n_calls * (
                 len(found["codes"]) + (0 if starts is None else len(starts)))}
    return Designs(**found, history=run.table(), judge_score=judged, card=designer.card, queries=run.spent,
                   seconds=time.perf_counter() - begun, seed=seed, starts=starts, start_score=run.start_score,
                   judge_start_score=judged_starts, flanks=rules.flanks, attrs=attrs)


class _Spent(Exception):
    """A gradient was asked for that the budget does not pay."""


class _Run:
    """The ledger of one run."""

    def __init__(self, objective: Objective, constraints: Constraints, length: int, starts: ndarray | None, n: int,
                 budget: int, batch_size: int, diversity: float):
        self.objective, self.constraints, self.starts = objective, constraints, starts
        self.price, self.budget, self.batch_size = objective.n_calls, budget, batch_size
        n_starts = 1 if starts is None else len(starts)
        self.n, self.length, self.spent = n, length, 0
        self.archive = Archive(n_starts, -(-n // n_starts), self.length, diversity)
        self.scores = Scores(self.length)
        self.start_score: ndarray | None = None
        self.improved_at = 0
        self.rounds: list[tuple[float, ...]] = []

    @property
    def left(self) -> int:
        """Sequences that can still be paid for; the last look at the designs is set aside."""
        return (self.budget - self.spent) // self.price - self.n

    def search(self, designer: Designer, starts: ndarray | None, patience: int | None, target: float | None,
               rng: np.random.Generator, bar: Progress) -> str:
        """Let the designer work; say what ended it."""
        n_first = 1 if starts is None else len(starts) + int((starts != self.starts).any(axis=1).sum())
        if self.left < n_first:
            raise ConfigError(f"the budget of {self.budget:,} calls pays for {self.budget // self.price:,} sequences "
                              f"at {self.price} each; {n_first:,} at the start and {self.n:,} designs are the least; "
                              "raise it, or ask for fewer designs")
        task = bar.add_task(designer.card.name, total=self.budget)
        problem, idle = self.problem(starts, rng), 0
        try:
            designer.start(problem)
            while self.left > 0 and idle < _IDLE:
                before = self.spent
                proposal = designer.propose(self.left)
                if not len(proposal.codes):
                    return "exhausted"
                values = self.ask(proposal)
                if len(values) == len(proposal.codes):
                    designer.observe(proposal, values)
                bar.update(task, completed=self.spent)
                idle = 0 if self.spent > before else idle + 1
                if patience is not None and self.spent - self.improved_at >= patience:
                    return "patience"
                if target is not None and self.archive.score.min() >= target:
                    return "target"
        except KeyboardInterrupt:
            return "interrupted"
        except _Spent:
            return "budget"
        return "exhausted" if idle else "budget"

    def problem(self, starts: ndarray | None, rng: np.random.Generator) -> Problem:
        """What the designer is told; the starts are paid here."""
        start_score = None
        if starts is not None and self.starts is not None:
            self.start_score = self.pay(Proposal(self.starts, np.arange(len(starts))))
            start_score = self.ask(Proposal(starts, np.arange(len(starts))))
        return Problem(starts, start_score, self.length, self.constraints, self.n, self.left, rng,
                       self.gradient if self.objective.differentiable else None)

    def gradient(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, " B"]:
        """Score sequences so that gradients reach them; twice the price."""
        if 2 * len(X) > self.left:
            raise _Spent
        self.spent += 2 * len(X) * self.price
        return self.objective(X)

    def pay(self, proposal: Proposal) -> Float[ndarray, " n"]:
        """Scores of sequences, whatever is known or allowed."""
        self.spent += len(proposal.codes) * self.price
        values = score_proposal(self.objective, proposal, self.batch_size)
        self.scores.add(self.scores.keys(proposal.codes), values)
        return values

    def ask(self, proposal: Proposal) -> Float[ndarray, " m"]:
        """Scores of a proposal, −infinity where it is not allowed; fewer when the budget ends before."""
        wrong = proposal.codes.shape[1] != self.length or proposal.codes.max() >= N
        if wrong or len(proposal.origin) != len(proposal.codes):
            raise SchemaError(f"a designer proposes codes 0..3 (n, {self.length}) and their origin (n,); got "
                              f"{proposal.codes.dtype} {proposal.codes.shape} and {proposal.origin.shape}")
        out, counts = [], np.zeros(3, np.int64)
        step = max(1, _POSITIONS // self.length)
        for i in range(0, len(proposal.codes), step):
            part = proposal.part(slice(i, i + step))
            keys = self.scores.keys(part.codes)
            allowed = self.constraints.ok(part.codes, part.origin)
            known = self.scores.find(keys)
            new = allowed & np.isnan(known)
            new[new] = is_first(keys[new])
            end = len(new)
            if new.sum() > self.left:
                end = int(np.flatnonzero(new)[self.left])
                new[end:] = False
            found_at = self.spent + np.cumsum(new) * self.price
            if new.any():
                self.pay(part.part(np.flatnonzero(new)))
            values = np.where(allowed, self.scores.find(keys), -np.inf)[:end]
            if self.archive.add(part.codes[:end], values, part.origin[:end], found_at[:end]):
                self.improved_at = self.spent
            out.append(values)
            counts += end, (~allowed[:end]).sum(), (allowed & ~new)[:end].sum()
            if end < len(new):
                break
        filled = self.archive.score[self.archive.score > -np.inf]
        best, mean = (filled.max(), filled.mean()) if len(filled) else (np.nan, np.nan)
        self.rounds.append((self.spent, best, mean, *counts.tolist()))
        return np.concatenate(out)

    def finish(self, n: int) -> dict[str, Any]:
        """The designs, read once more and in full, best first."""
        start, place = self.archive.best(n)
        codes = self.archive.codes[start, place]
        parts = [{name: np.zeros(0) for name in self.objective.names}]
        values = [np.zeros(0)]
        self.spent += len(codes) * self.price
        for i in range(0, len(codes), self.batch_size):
            with torch.no_grad():
                made = self.objective.components(torch.from_numpy(codes[i:i + self.batch_size]))
                values.append(self.objective.combine(made).cpu().double().numpy())
            parts.append({name: value.cpu().double().numpy() for name, value in made.items()})
        total = np.concatenate(values)
        order = np.argsort(-total, kind="stable")
        table = pd.DataFrame({name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]})
        edits = None if self.starts is None else (codes != self.starts[start]).sum(axis=1)[order]
        return {"codes": codes[order], "score": total[order], "components": table, "origin": start[order],
                "edits": edits, "found_at": self.archive.found_at[start, place][order]}

    def table(self) -> pd.DataFrame:
        """The rounds."""
        columns = pd.Index(["queries", "best", "mean", "proposed", "infeasible", "repeated"])
        table = pd.DataFrame(self.rounds, columns=columns)
        return table.astype(dict.fromkeys(("queries", "proposed", "infeasible", "repeated"), np.int64))


def read_starts(start: Any) -> UInt8[ndarray, "S L"]:
    """Codes of starts that are given as letters, codes or one-hot."""
    if isinstance(start, str):
        raise SchemaError("start is a list of sequences; got one text; give [start]")
    if not isinstance(start, Tensor | ndarray):
        lengths = sorted({len(text) for text in start})
        if len(lengths) != 1:
            raise SchemaError(f"starts are one or more sequences of one length; got lengths {lengths}")
        start = np.stack([encode(text) for text in start])
    codes = codes_of(start)
    bad = (codes >= N).any(axis=1)
    if not codes.size or bad.any():
        first = f"; first: start {int(bad.argmax())}, position {int((codes[bad.argmax()] >= N).argmax())}" if bad.any(
            ) else ""
        raise SchemaError(f"starts hold A C G T only, one sequence at least; {int(bad.sum()):,} of {len(codes):,} hold "
                          f"something else{first}")
    return codes


def _allowed(starts: ndarray, rules: Constraints, infeasible: str) -> tuple[ndarray, int]:
    """Starts that keep the rules, and how many had to be repaired."""
    origin = np.arange(len(starts))
    bad = ~rules.ok(starts, origin)
    if not bad.any():
        return starts, 0
    if infeasible == "error":
        raise SchemaError(f"{int(bad.sum()):,} of {len(starts):,} starts break a constraint; first: start "
                          f"{int(bad.argmax())}; see constraints.violations(starts), or give infeasible='repair'")
    repaired, _ = rules.repair(starts, origin)
    return repaired, int(bad.sum())


def _check_settings(n: int, patience: int | None, diversity: float, batch_size: int, infeasible: str) -> None:
    if n < 1 or batch_size < 1 or (patience is not None and patience < 1):
        raise ConfigError(f"n, batch_size and patience are at least 1; got n={n}, batch_size={batch_size}, "
                          f"patience={patience}")
    if infeasible not in ("error", "repair"):
        raise ConfigError(f"infeasible starts are an 'error' or 'repair'; got {infeasible!r}")
    check_diversity(diversity)
