"""The sequences of a run and its trained model, ready to be asked: what is explained, designed on, or compared."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy import ndarray
from torch import Tensor

from ciscribe.errors import ConfigError, DataMissingError, InputError, nearest
from ciscribe.models import registry
from ciscribe.oracle import Oracle, Scalar
from ciscribe.report.run import UNITS
from ciscribe.train.evaluate import model_inputs
from ciscribe.workflow.reporter import FOLDS, ReporterRun
from ciscribe.workflow.run import Run

LONG = 5_000
"""Length in bp from which a sequence is a genomic window: fewer of them are taken, and not every base is mutated."""

_NUMBERS = 2**27  # of an attribution array, unless more sequences are asked for: half a GB
_POSITIONS = 2**18  # of all sequences of a forward pass


class Subject(NamedTuple):
    """What is explained: a model, and sequences with their names.

    Bins that a blacklist erases from the mask of a model are not erased here.
    """

    oracle: Oracle
    codes: ndarray  # uint8 (B, L)
    S: Tensor | None
    covariates: Tensor | None
    regions: list[str]
    tracks: list[str]  # names of what the oracle reads
    observed: ndarray | None  # (B, T); None where the model predicts in other units
    units: str  # of the predictions

    def take(self, rows: ndarray) -> "Subject":
        """Some of the sequences."""
        S, covariates, observed = (None if v is None else v[rows] for v in (self.S, self.covariates, self.observed))
        return self._replace(codes=self.codes[rows], S=S, covariates=covariates, observed=observed,
                             regions=[self.regions[i] for i in rows])

    @property
    def inputs(self) -> tuple[Oracle, ndarray, Tensor | None, Tensor | None]:
        """The first four arguments of every analysis."""
        return self.oracle, self.codes, self.S, self.covariates

    @property
    def length(self) -> int:
        """Of the sequences, in bp."""
        return self.codes.shape[1]

    @property
    def batch_size(self) -> int:
        """Sequences a forward pass."""
        return min(64, max(1, _POSITIONS // self.length))


def open_run(folder: str | Path, *, trained: bool = False, **options: Any) -> Run | ReporterRun:
    """The job of a run folder, of genes or of a reporter assay, whichever it is.

    Raises
    ------
    DataMissingError
        When the folder holds no run, or it must be `trained` and is not.
    """
    config = Path(folder) / "config.yaml"
    is_assay = config.is_file() and re.search(r"^assay:", config.read_text(), re.MULTILINE)
    job = ReporterRun(folder, **options) if is_assay else Run(folder, **options)
    if trained and not all((job.folder / file).exists() for file in job.OUTPUTS["train"]):
        verb = "reporter" if is_assay else "run"
        raise DataMissingError(f"{folder} holds no trained model yet; train it with: ciscribe {verb} CONFIG")
    return job


def subject(folder: str | Path, *, genes: Sequence[str] = (), fold: str = "all", n: int | None = None,
            track: str | None = None, usual: tuple[int, int] = (1_000, 60), seed: int = 0) -> Subject:
    """Model and sequences of a run folder.

    Parameters
    ----------
    genes
        Genes (id or name) or sequences (name) to take; those of `fold` unless given.
    fold
        ``train``, ``valid``, ``test`` or ``all``.
    n
        Most sequences of a fold; more are thinned at random.
    track
        Name of the only target to read; all unless given.
    usual
        `n` unless given: of short sequences, and of windows of 5 kb or more. Fewer where an attribution of all
        targets would take more than half a GB.

    Raises
    ------
    DataMissingError, ConfigError, InputError
        When the folder holds no trained run, a name, target or fold is not in it, or its table has changed.
    """
    if fold not in ("all", *FOLDS):
        raise ConfigError(f"fold is one of all, {', '.join(FOLDS)}; got {fold!r}")
    if n is not None and n < 1:
        raise ConfigError(f"at least 1 sequence is needed; got n={n}")
    job = open_run(folder, trained=True)
    source = _assay(job) if isinstance(job, ReporterRun) else _windows(job)
    tracks = list(range(len(source.tracks))) if track is None else [index_of(source.tracks, track)]
    most = min(usual[source.length > LONG], max(1, _NUMBERS // (4 * source.length * len(tracks))))
    rows = _named(genes, source.names) if genes else _drawn(source.fold, fold, most if n is None else n, seed)
    model, _ = registry.load(job.folder / "model", expect=job.config.model.name)
    codes, S, covariates, observed = source.read(rows)
    return Subject(Oracle(model, None if track is None else Scalar(track=tracks[0]), device=job.config.train.device),
                   codes, S, covariates, [source.names[i][0] for i in rows], [source.tracks[t] for t in tracks],
                   None if observed is None else observed[:, tracks], source.units)


class _Source(NamedTuple):
    """Sequences of a run that can be read."""

    names: list[tuple[str, ...]]  # of each; the first one is shown
    fold: ndarray  # name of each
    length: int
    tracks: list[str]
    units: str
    read: Callable[[ndarray], tuple[ndarray, Tensor | None, Tensor | None, ndarray | None]]


def _assay(job: ReporterRun) -> _Source:
    data, config = job.data, job.config
    table = pd.read_parquet(job.folder / "folds.parquet")
    names = [str(name) for name in data.table["name"]]
    if table["name"].astype(str).tolist() != names:
        raise InputError(f"the assay of {job.folder} holds other sequences ({len(names):,}) than when the model was "
                         f"trained ({len(table):,}); train it again with: ciscribe reporter CONFIG")
    activity = f"{config.assay.log}(activity)" if config.assay.log else "activity"
    units = ("log-odds" if config.task == "classification" else
             f"{activity} before softplus" if config.train.loss == "poisson" else activity)

    def read(rows: ndarray) -> tuple[ndarray, None, None, ndarray | None]:
        return data.codes[rows], None, None, data.targets[rows] if units == activity else None

    return _Source([(name,) for name in names], table["fold"].to_numpy(str), data.codes.shape[1],
                   list(data.target_names), units, read)


def _windows(job: Run) -> _Source:
    store = job.store

    def read(rows: ndarray) -> tuple[ndarray, Tensor | None, Tensor | None, ndarray]:
        batch = store.batch(rows)
        given = model_inputs(batch)
        return batch.codes.numpy(), given["S"], given["covariates"], batch.targets.numpy()

    names = zip(store.genes["gene_id"].astype(str), store.genes["gene_name"].astype(str), strict=True)
    return _Source(list(names), store.genes["fold"].to_numpy(str), store.spec.length, list(store.target_names),
                   UNITS[job.config.data.expression.transform], read)


def _named(wanted: Sequence[str], names: Sequence[tuple[str, ...]]) -> ndarray:
    """Rows of names, each once; an id goes before a name that reads the same."""
    place: dict[str, int] = {}
    for which in range(len(names[0])):
        for i, known in enumerate(names):
            place.setdefault(known[which], i)
    unknown = [name for name in wanted if name not in place]
    if unknown:
        alike = [name for name in place if name[:3].lower() == unknown[0][:3].lower()][:10]
        raise ConfigError(f"{len(unknown)} of {len(wanted)} names are not in this run of {len(names):,} sequences; "
                          f"first: {unknown[0]!r}; {nearest(unknown[0], alike or list(place)[:3])}")
    return np.array([place[name] for name in dict.fromkeys(wanted)])


def _drawn(folds: ndarray, fold: str, most: int, seed: int) -> ndarray:
    """Rows of a fold, thinned."""
    rows = np.flatnonzero((folds == fold) | (fold == "all"))
    if not len(rows):
        raise ConfigError(f"the {fold} fold of this run holds no sequence; take another one with fold")
    return rows if len(rows) <= most else np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def index_of(tracks: Sequence[str], name: str | None) -> int:
    """Place of a target by its name; the first for None."""
    if name is not None and name not in tracks:
        raise ConfigError(f"no target is called {name!r} here; {nearest(name, tracks)}")
    return 0 if name is None else list(tracks).index(name)
