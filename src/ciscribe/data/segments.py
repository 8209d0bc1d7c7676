"""Training examples of EPInformer: a promoter and its candidate elements instead of a window.

The segments of a gene stand side by side with the promoter in the middle, as `ciscribe.models.epinformer` reads them;
a bin of signals is a segment. Sequences stay in their file, and are read batch by batch.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from numpy import ndarray

from ciscribe.data.split import FOLDS
from ciscribe.data.windows import Batch
from ciscribe.errors import ConfigError, InputError, SchemaError
from ciscribe.io.segments import Segments
from ciscribe.schema import check_expression
from ciscribe.sequence import N

TRACK_NAMES = ("distance_kb", "log10_contact", "activity")


class SegmentStore:
    """Genes as sets of segments, ready for `ciscribe.data.windows.loader` and `ciscribe.train.fit`.

    Parameters
    ----------
    segments
        The file.
    expression
        Index `gene_id`, one column a target.
    fold
        Gene id → ``train``, ``valid`` or ``test``, from `ciscribe.io.genes.read_folds`; genes that it does not name
        are left out.
    covariates
        Index `gene_id`, numbers; standardized with mean and sd of the training genes. None for none.
    max_distance
        bp; a candidate as far away or farther is a free slot.

    Attributes
    ----------
    gene_ids, fold
        Of the rows, in the order of the file.
    targets, covariates
        float32 ``(G, T)`` and ``(G, C)``.
    track_names, target_names, covariate_names
        Names along the axes.

    Raises
    ------
    SchemaError
        Broken expression.
    InputError
        When a gene with a fold has no expression or no covariates, or a fold has no gene of the file.
    ConfigError
        When the file has an even number of slots, so that no segment is the middle one.

    Notes
    -----
    Signals are those of the published loader: distance in kb, log10(contact + 1), activity, and 0 for the promoter.
    One difference: a candidate beyond `max_distance` loses its features with its sequence, there only its distance.
    """

    def __init__(self, segments: Segments, expression: pd.DataFrame, fold: Mapping[str, str],
                 covariates: pd.DataFrame | None = None, *, max_distance: int = 100_000):
        if not segments.n_segments % 2:
            raise ConfigError(f"segments {segments.path}: the promoter stands in the middle of an odd number of slots; "
                              f"got {segments.n_segments}")
        check_expression(expression)
        self.segments, self.max_distance = segments, max_distance
        known = [i for i, gene in enumerate(segments.gene_ids) if gene in fold]
        self._file_rows = np.array(known, dtype=np.int64)
        self.gene_ids = [segments.gene_ids[i] for i in self._file_rows]
        self.fold = np.array([fold[gene] for gene in self.gene_ids], dtype=object)
        for name in FOLDS:
            if not (self.fold == name).any():
                raise InputError(f"segments {segments.path}: none of their {len(segments):,} genes (first: "
                                 f"{segments.gene_ids[0]}) is in the {name} fold; check the id version and the fold")
        self.target_names = [str(c) for c in expression.columns]
        self.targets = self._of_genes(expression, "expression")
        table = np.zeros((len(self), 0), np.float32) if covariates is None else self._of_genes(covariates, "covariates")
        if not np.isfinite(table).all():
            first = self.gene_ids[int((~np.isfinite(table)).any(axis=1).argmax())]
            raise SchemaError(f"{int((~np.isfinite(table)).sum()):,} covariates are no numbers; first: gene {first}")
        train = self.rows("train")
        self.covariates = ((table - table[train].mean(axis=0)) / np.maximum(table[train].std(axis=0), 1e-6)
                           if table.shape[1] else table)
        self.covariate_names = [] if covariates is None else [str(c) for c in covariates.columns]
        self.track_names = list(TRACK_NAMES)
        middle = segments.n_segments // 2
        self._order = np.r_[1:middle + 1, 0, middle + 1:segments.n_segments]

    def _of_genes(self, table: pd.DataFrame, what: str) -> ndarray:
        absent = [gene for gene in self.gene_ids if gene not in table.index]
        if absent:
            raise InputError(f"{len(absent):,} of {len(self.gene_ids):,} genes of {self.segments.path} have no {what}; "
                             f"first: {absent[0]}")
        return table.loc[self.gene_ids].to_numpy(np.float32)

    def __len__(self) -> int:
        return len(self.gene_ids)

    def __repr__(self) -> str:
        return (f"SegmentStore({len(self):,} genes × {self.segments.n_segments} segments of "
                f"{self.segments.length:,} bp, {len(self.target_names)} targets)")

    def rows(self, fold: str) -> ndarray:
        """Row numbers of the genes of a fold."""
        return np.flatnonzero(self.fold == fold)

    def batch(self, rows: Sequence[int] | ndarray, shift: ndarray | None = None) -> Batch:
        """Examples of some rows, in their order; segments do not shift.

        Raises
        ------
        ConfigError
            When a shift is asked for.
        """
        if shift is not None:
            raise ConfigError("segments are cut already and cannot shift; set max_shift to 0")
        rows = np.asarray(rows, dtype=np.int64)
        at = self._file_rows[rows]
        distance, activity, contact = self.segments.features(at).transpose(1, 0, 2)
        codes = self.segments.codes(at)
        free = np.abs(distance) >= self.max_distance
        free[:, 0] = False
        codes[free] = N
        signals = np.stack([distance / 1000, np.log10(contact + 1), activity], axis=1)
        signals[:, :, 0] = 0
        signals = np.where(free[:, None], 0, signals)
        keep = np.ones((len(rows), self.segments.n_segments), np.float32)
        return Batch(*(torch.from_numpy(np.ascontiguousarray(a)) for a in (
            codes[:, self._order].reshape(len(rows), -1), signals[..., self._order].astype(np.float32),
            self.covariates[rows], self.targets[rows], keep, rows)))

    def cut(self, batch: Batch, window_bp: int) -> Batch:
        """Take the candidates of a batch away that reach beyond the central `window_bp`, and the promoter's ends."""
        n, length = self.segments.n_segments, self.segments.length
        inside = batch.signals[:, 0].abs() * 1000 + length / 2 <= window_bp / 2
        inside[:, n // 2] = True
        codes = torch.where(inside.repeat_interleave(length, dim=1), batch.codes, N).unflatten(1, (n, length))
        codes[:, n // 2, (torch.arange(length) + 0.5 - length / 2).abs() > window_bp / 2] = N
        return batch._replace(codes=codes.flatten(1), signals=batch.signals * inside.unsqueeze(1),
                              keep=batch.keep * inside)
