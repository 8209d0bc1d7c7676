"""A file of variants scored: by the model of a run, by known motifs, or by both.

Variants are read, checked against the genome, scored and written some thousand at a time, so memory does not grow with
the file. The folder appears when all of it is written:

================== ====================================================================================================
effects.parquet    one row a variant × track × gene (`ciscribe.schema.check_effects`), with the scores of the model
motifs.parquet     one row a variant × motif that either allele matches: ``d_pwm, d_occupancy``
variants.vcf.gz    the file itself with the scores in its INFO, where it was a VCF
report.html        the strongest, and where they lie
provenance.json    what was scored, left out, and by what
================== ====================================================================================================
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ciscribe.card import Card
from ciscribe.data.inputs import input_paths
from ciscribe.errors import ConfigError, InputError
from ciscribe.io.annotate import annotated_vcf
from ciscribe.io.genome import Genome
from ciscribe.io.links import read_links
from ciscribe.io.motifs import read_meme
from ciscribe.io.text import existing_file
from ciscribe.io.variant_tables import iter_variants
from ciscribe.io.variants import Skipped, VariantChunk
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.provenance import atomic_folder, checksum, provenance, write_json
from ciscribe.report.build import build_report
from ciscribe.report.links import LinkedLocus, loci_section, variants_section
from ciscribe.report.run import UNITS
from ciscribe.sequence import Reference
from ciscribe.train.evaluate import model_inputs
from ciscribe.variants import motif_effects, null, score
from ciscribe.variants.alleles import check_reference
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.run import Run
from ciscribe.workflow.subject import open_run

Tell = Callable[[str], None]

_CHUNK = 5_000
_NULL = 5_000  # scores that a null is made of, a track
_KEPT = 400  # strongest rows that the report chooses from
_MOST_LOCI = 3
_KEY = ["chrom", "pos", "ref", "alt"]
_UNSIGNED = ("abs_logfc", "jsd", "max_abs_sad", "l2")


class Asked(NamedTuple):
    """What variants are asked of: one model or several of a kind, and at which places."""

    oracles: list[Oracle]
    options: dict[str, Any]  # of `ciscribe.variants.score.score_variants`
    genome: Path | None
    genes: pd.DataFrame | None  # of a run of genes
    units: str
    runs: list[Path]


def score_file(path: str | Path, out: str | Path | None = None, *, run: str | Path | None = None,
               others: Sequence[str | Path] = (), genome: str | Path | None = None,
               motifs: Sequence[str | Path] = (), scorers: Sequence[str] = ("diff",),
               links: str | Path | None = None, mismatch: Literal["error", "flip", "drop"] = "error",
               one_based: bool | None = None, n_shuffles: int = 0, n_matched: int = 0, snap: int = 1, seed: int = 0,
               tell: Tell = print, progress: bool = True) -> Path:
    """Score the variants of a file.

    Parameters
    ----------
    path
        VCF (plain, gzip, bgzip) or a table with ``chrom, pos, ref, alt[, name]``.
    out
        Folder; ``<run>/variants/<file>`` unless given, ``variants/<file>`` without a run.
    run, others
        Folder of a trained run, of genes or of a reporter assay; and of others of the same kind (seeds, folds), which
        make an ensemble.
    genome
        FASTA; that of the run unless given.
    motifs
        MEME files of known factors.
    scorers
        See `ciscribe.variants.score`.
    links
        Table of element–gene links: effects are also given through the element that a variant lies in.
    mismatch
        What happens where the reference allele is not what the genome has: ``error``, ``flip`` or ``drop``.
    one_based
        Of a table: whether its positions count from 1.
    n_shuffles, n_matched
        Shuffled contexts a variant for p-values, and random variants of its kind for percentiles; 0 makes none.
    snap
        See `ciscribe.variants.score.score_variants`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError
        When there is neither a run nor a motif, or no genome.
    DataMissingError, InputError, SchemaError
        For files and variants that cannot be used.
    """
    if run is None and not motifs:
        raise ConfigError("variants are scored by the model of a run (--run), by known motifs (--motifs FILE.meme), or "
                          "both; neither was given")
    asks_model = {"--others": others, "--links": links, "--shuffles": n_shuffles, "--matched": n_matched,
                  "--snap": snap != 1}
    if run is None and (idle := [name for name, given in asks_model.items() if given]):
        raise ConfigError(f"{', '.join(idle)} would do nothing: motifs are scored as they are, and there is no model "
                          "to ask; give a --run, or leave it out")
    path = existing_file(path, "variants")
    asked = _asked(run, others, snap, scorers)
    fasta = Path(genome) if genome is not None else asked.genome
    if fasta is None:
        raise ConfigError("variants need the genome that they are on: give its FASTA with --genome")
    reference = Genome(fasta)
    database = [motif for file in motifs for motif in read_meme(file)]
    known_links = None if links is None else read_links(links)
    stem = re.sub(r"(\.(vcf|tsv|csv|txt|bed))?(\.b?gz)?$", "", path.name)
    folder = Path(out) if out is not None else (asked.runs[0] if asked.runs else Path()) / "variants" / stem
    tally: dict[str, int] = {}
    skipped, top, top_motifs = Skipped(), [], []
    scored = None if not asked.oracles else _Scorer(asked, reference, scorers, known_links, n_shuffles, n_matched, seed)
    is_vcf = _is_vcf(path)
    fields = _fields(asked, scorers, bool(database))
    with atomic_folder(folder) as temporary, ExitStack() as stack:
        effects = stack.enter_context(_parquet(temporary / "effects.parquet"))
        changes = stack.enter_context(_parquet(temporary / "motifs.parquet"))
        vcf = stack.enter_context(annotated_vcf(path, temporary / "variants.vcf.gz", fields)) if is_vcf else None
        for chunk in _chunks(path, one_based):
            skipped += chunk.skipped
            given = chunk.variants.assign(row=np.arange(len(chunk.variants)))
            checked = check_reference(given, reference, mismatch=mismatch)
            tally = {name: tally.get(name, 0) + n for name, n in checked.tally.items()}
            columns: dict[str, np.ndarray] = {name: np.full(len(given), np.nan) for name in fields}
            variants = checked.variants.drop_duplicates(_KEY)
            same = checked.variants.groupby(_KEY, sort=False)["row"].transform("first").to_numpy()  # rows may repeat
            if scored is not None and len(variants):
                table = scored(variants)
                if len(table):
                    effects(table.drop(columns=["row"]))
                    top.append(_strongest(table, scorers[0]))
                    _fill(columns, table, scorers)
            if database and len(variants):
                found = motif_effects.motif_effects(reference, variants, database)
                changed = found.table()
                changes(changed)
                top_motifs.append(changed.rename(columns={"track": "motif"}))
                most = found.summarize()
                for name in ("d_pwm", "d_occupancy"):
                    columns[name][variants["row"].to_numpy()] = most[name].to_numpy(float)
            if vcf is not None:
                vcf.write(chunk, _as_written(columns, checked.variants, same))
            tell(f"variants: {tally['variants']:,} read, {tally['kept']:,} on the genome")
        if scored is not None and tally["kept"] and not top:
            raise InputError(f"none of {tally['kept']:,} variants of {path} lies in a window of the {len(asked.genes)} "
                             "genes of the run; is the file of the same build?" if asked.genes is not None else
                             f"none of the variants of {path} could be scored")
        shown = pd.concat(top, ignore_index=True).drop(columns=["row"]) if top else None
        shown = None if shown is None else _strongest(shown, scorers[0])
        facts = {"variants": str(path), "sha256": checksum(path), "genome": str(fasta), "tally": tally,
                 "skipped": skipped.counts, "runs": [str(r) for r in asked.runs], "motifs": [str(m) for m in motifs],
                 "links": None if links is None else str(links), "mismatch": mismatch, "scorers": list(scorers),
                 "shuffles": n_shuffles, "matched": n_matched, "snap": snap}
        write_json(temporary / "provenance.json", provenance(seed=seed, **facts))
        _report(temporary, asked, shown, _of(top_motifs, shown), tally, skipped, facts, path.name)
    if skipped:
        tell(f"  {skipped}")
    return folder


# ---- what is asked


def _asked(run: str | Path | None, others: Sequence[str | Path], snap: int, scorers: Sequence[str]) -> Asked:
    """The models of runs of one kind, and where they are asked."""
    unknown = [name for name in scorers if name not in score.SCORERS]
    if unknown or not scorers:
        raise ConfigError(f"scorers are of {', '.join(score.SCORERS)}; got {', '.join(unknown) or 'none'}")
    if run is None:
        return Asked([], {}, None, None, "", [])
    jobs = [open_run(folder, trained=True, tell=lambda line: None) for folder in (run, *others)]
    oracles, kinds = [], []
    for job in jobs:
        model, _ = registry.load(job.folder / "model", expect=job.config.model.name)
        oracles.append(Oracle(model, device=job.config.train.device))
        kinds.append(_kind(job))
    for job, kind in zip(jobs[1:], kinds[1:], strict=True):
        if kind != kinds[0]:
            raise ConfigError(f"the runs of an ensemble read the same inputs and predict the same targets; "
                              f"{jobs[0].folder} has {kinds[0]}, {job.folder} has {kind}")
    first, folders = jobs[0], [job.folder for job in jobs]
    if isinstance(first, ReporterRun):
        data = first.data
        options = {"length": data.codes.shape[1], "tracks": list(data.target_names), "snap": snap}
        log = first.config.assay.log
        return Asked(oracles, options, None, None, f"{log}(activity)" if log else "activity", folders)
    if snap != 1:
        raise ConfigError(f"--snap {snap} would do nothing: the windows of a run of genes lie around the genes, not "
                          "around the variants; leave it out")
    store = first.store
    windows = store.windows()
    strand = store.genes["strand"].to_numpy() if store.spec.strand_aware else "+"
    row = {gene: i for i, gene in enumerate(windows["gene_id"])}

    def inputs(name: str) -> Callable[[pd.DataFrame], Any]:
        return lambda table: model_inputs(store.batch(np.array([row[gene] for gene in table["gene_id"]])))[name]

    given = model_inputs(store.batch(np.arange(1)))
    options = {"windows": windows.assign(strand=strand), "tracks": list(store.target_names)}
    options |= {name: inputs(name) for name in ("S", "covariates") if given[name] is not None}
    return Asked(oracles, options, input_paths(first.config)["genome"], store.genes,
                 UNITS[first.config.data.expression.transform], folders)


def _kind(job: Run | ReporterRun) -> tuple[Any, ...]:
    if isinstance(job, ReporterRun):
        return "reporter assay", job.data.codes.shape[1], tuple(job.data.target_names)
    return "genes", job.store.spec.length, tuple(job.store.target_names), tuple(job.store.track_names)


class _Scorer:
    """Scores piece after piece of a file; nulls are made once, of the variants that come first."""

    def __init__(self, asked: Asked, reference: Reference, scorers: Sequence[str], links: pd.DataFrame | None,
                 n_shuffles: int, n_matched: int, seed: int):
        if n_shuffles and "windows" in asked.options:
            raise ConfigError("p-values of shuffled contexts are for windows around the variants; the windows of a run "
                              "of genes lie around the genes: use --matched, random variants of the same kind")
        self.asked, self.reference, self.links, self.seed = asked, reference, links, seed
        self.options: dict[str, Any] = asked.options | {"scorers": tuple(scorers)}
        self.n_shuffles, self.n_matched = n_shuffles, n_matched
        self.null: pd.DataFrame | None = None
        self.background: pd.DataFrame | None = None

    def __call__(self, variants: pd.DataFrame) -> pd.DataFrame:
        """Effects table of these variants, empty where none lies in a window."""
        oracles, scorers = self.asked.oracles, self.options["scorers"]
        table = score.score_variants(oracles, self.reference, variants, outside="skip", **self.options)
        if self.n_shuffles:
            self.null = self._shuffled(variants) if self.null is None else self.null
            table = null.p_values(table, self.null, scorers)
        if self.n_matched:
            self.background = self._matched(variants) if self.background is None else self.background
            table = null.percentiles(table, self.background, scorers)
        if self.links is not None and len(table):
            elements = pd.DataFrame(self.links, columns=pd.Index(["chrom", "start", "end"])).drop_duplicates()
            table = score.element_effects(table, elements, self.links, score=scorers[0])
        return table

    def _few(self, variants: pd.DataFrame, n: int) -> pd.DataFrame:
        most = max(1, _NULL // n)
        return variants if len(variants) <= most else variants.sample(most, random_state=self.seed)

    def _shuffled(self, variants: pd.DataFrame) -> pd.DataFrame:
        options = {k: v for k, v in self.options.items() if k != "snap"}
        return null.shuffled_null(self.asked.oracles, self.reference, self._few(variants, self.n_shuffles),
                                  n=self.n_shuffles, seed=self.seed, **options)

    def _matched(self, variants: pd.DataFrame) -> pd.DataFrame:
        like = null.matched_variants(self._few(variants, self.n_matched), self.reference, self.n_matched,
                                     seed=self.seed, genes=self.asked.genes)
        return score.score_variants(self.asked.oracles, self.reference, like.drop_duplicates(_KEY), **self.options)


# ---- what is written


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """A function that appends a table to a file; no table, no file."""
    writer: pq.ParquetWriter | None = None

    def append(table: pd.DataFrame) -> None:
        nonlocal writer
        part = pa.Table.from_pandas(table, preserve_index=False)
        if writer is None:
            writer = pq.ParquetWriter(path, part.schema)
        writer.write_table(part.cast(writer.schema))

    try:
        yield append
    finally:
        if writer is not None:
            writer.close()


def _is_vcf(path: Path) -> bool:
    return bool(re.search(r"\.vcf(\.b?gz)?$", path.name, re.IGNORECASE))


def _chunks(path: Path, one_based: bool | None) -> Iterator[VariantChunk]:
    return iter_variants(path, chunk=_CHUNK, one_based=one_based)


def _fields(asked: Asked, scorers: Sequence[str], has_motifs: bool) -> dict[str, str]:
    """INFO fields of the annotated file."""
    fields = {}
    for name in scorers if asked.oracles else ():
        for track in asked.options["tracks"]:
            of = "; the largest of the genes" if asked.genes is not None else ""
            fields[_field(name, track)] = f"ciscribe {name} of {track}, alternative minus reference{of}"
    if has_motifs:
        fields["d_pwm"] = "ciscribe: change of the best match of the motif that changes most, bits"
        fields["d_occupancy"] = "ciscribe: log2 change of the expected occupancy of the factor that changes most"
    return fields


def _as_written(columns: dict[str, np.ndarray], checked: pd.DataFrame, same: np.ndarray) -> dict[str, np.ndarray]:
    """Scores for the rows of the file: repeated ones too, and of flipped ones for REF and ALT as they stand there."""
    rows = checked["row"].to_numpy()
    turned = checked["flipped"].to_numpy(bool) if "flipped" in checked else np.zeros(len(rows), bool)
    out = {}
    for name, values in columns.items():
        new = values.copy()
        new[rows] = values[same]
        if not name.startswith(_UNSIGNED):
            new[rows[turned]] *= -1
        out[name] = new
    return out


def _field(name: str, track: object) -> str:
    return re.sub(r"[^0-9A-Za-z_.]", "_", f"{name}_{track}")


def _fill(columns: dict[str, np.ndarray], table: pd.DataFrame, scorers: Sequence[str]) -> None:
    """Put scores at the place of their variants; of several genes the largest."""
    for name in scorers:
        ranked = table.iloc[np.argsort(-np.abs(table[name].to_numpy(float)), kind="stable")]
        for track, rows in ranked.drop_duplicates(["row", "track"]).groupby("track"):
            columns[_field(name, track)][rows["row"].to_numpy()] = rows[name].to_numpy(float)


def _strongest(table: pd.DataFrame, name: str) -> pd.DataFrame:
    order = np.argsort(-np.abs(table[name].to_numpy(float)), kind="stable")
    return table.iloc[order[:_KEPT]].reset_index(drop=True)


def _of(changed: list[pd.DataFrame], shown: pd.DataFrame | None) -> pd.DataFrame | None:
    """Changes of motifs by the variants that are shown; the largest of all where no model was asked."""
    if not changed:
        return None
    table = pd.concat(changed, ignore_index=True)
    return table if shown is None else table.merge(shown[_KEY].drop_duplicates(), on=_KEY)


def _report(folder: Path, asked: Asked, shown: pd.DataFrame | None, changed: pd.DataFrame | None,
            tally: dict[str, int], skipped: Skipped, facts: dict[str, Any], name: str) -> None:
    names = {} if asked.genes is None else dict(zip(asked.genes["gene_id"], asked.genes["gene_name"], strict=True))
    ranked = shown
    if ranked is None and changed is not None and len(changed):
        best = changed.iloc[np.argsort(-np.abs(changed["d_pwm"].to_numpy(float)), kind="stable")]
        ranked = best.drop_duplicates(_KEY).head(_KEPT).rename(columns={"motif": "track"})
    left_out = tally.get("variants", 0) - tally.get("kept", 0)
    summary = [("variants", f"{tally.get('kept', 0):,}", f"of {tally.get('variants', 0):,} alleles in the file"),
               ("left out", f"{left_out + len(skipped):,}", "off the genome, another reference, or no sequence")]
    if tally.get("flipped"):
        summary.append(("flipped", f"{tally['flipped']:,}", "reference and alternative had changed places"))
    used: list[Card] = [score.CARD] if asked.oracles else []
    used += list(motif_effects.CARDS.values()) if facts["motifs"] else []
    sections = [variants_section(ranked, changed if shown is not None else None, names=names, n=tally.get("kept")),
                loci_section(_loci(asked, shown))]
    subtitle = " and ".join([*(f"the model of {run.name}" for run in asked.runs[:1]), *(Path(m).name for m in
                                                                                      facts["motifs"])])
    build_report(folder / "report.html", title=f"{name}: variants", subtitle=f"scored by {subtitle}", summary=summary,
                 sections=sections, cards=used, provenance=facts)


def _loci(asked: Asked, shown: pd.DataFrame | None) -> list[LinkedLocus]:
    """Genes with the strongest variants, with the elements that their run called."""
    if shown is None or asked.genes is None:
        return []
    calls = asked.runs[0] / "elements.parquet"
    elements = pd.read_parquet(calls) if calls.is_file() else None
    windows = asked.options["windows"].set_index("gene_id")
    loci = []
    for gene_id in list(dict.fromkeys(shown["gene_id"]))[:_MOST_LOCI]:
        gene, window = asked.genes.loc[asked.genes["gene_id"] == gene_id].iloc[0], windows.loc[gene_id]
        own = shown.loc[shown["gene_id"] == gene_id]
        value = next(c for c in own.columns if c in score.SCORERS)
        called = None if elements is None else \
            elements.loc[elements["gene_id"] == gene_id, ["start", "end", "score"]].drop_duplicates(["start", "end"])
        loci.append(LinkedLocus(
            window["chrom"], max(int(window["start"]), 0), int(window["end"]), gene_id, str(gene["gene_name"]),
            int(gene["tss"]), called, asked.genes, variants=_strongest(own, value).drop_duplicates(_KEY), value=value))
    return loci
