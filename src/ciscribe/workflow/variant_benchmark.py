"""Scores of variants held against measured alleles: saturation mutagenesis, or pairs of which one is higher."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ciscribe.card import Card
from ciscribe.data.similarity import similarity_groups
from ciscribe.errors import ConfigError
from ciscribe.io.genome import MemoryGenome
from ciscribe.io.motifs import read_meme
from ciscribe.io.variant_assays import read_allele_pairs, read_saturation_mutagenesis
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.provenance import atomic_folder, checksum, provenance, write_json
from ciscribe.report.build import build_report
from ciscribe.report.links import variant_benchmark_section
from ciscribe.sequence import BASES, Reference
from ciscribe.variants import motif_effects, score
from ciscribe.variants.benchmark import replicate_ceilings, saturation_benchmark, sign_benchmark
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.subject import open_run

Tell = Callable[[str], None]


def compare_scores(out: str | Path, *, saturation: str | Path | None = None, high: str | Path | None = None,
                   low: str | Path | None = None, motifs: Sequence[str | Path] = (), runs: Sequence[str | Path] = (),
                   seed: int = 0, tell: Tell = print, progress: bool = True) -> tuple[pd.DataFrame, Path]:
    """Hold scores of variants against what was measured of them.

    Parameters
    ----------
    out
        Folder for ``benchmark.parquet``, ``experiments.parquet`` (saturation mutagenesis: each experiment;
        ``ceilings.parquet``: how well two agree) and ``report.html``.
    saturation
        Table of saturation mutagenesis; see `ciscribe.io.variant_assays.read_saturation_mutagenesis`.
    high, low
        FASTA of the higher and of the lower allele of pairs.
    motifs
        MEME files of known motifs: their largest and summed differences are methods.
    runs
        Folders of trained runs of reporter assays, each a method; the mean over targets is the score. Where a model
        reads more than was measured around a variant, the rest is N.

    Returns
    -------
    DataFrame, Path
        ``method, value, low, high`` (mean Spearman over loci, or AUROC of which allele is higher), and the folder.

    Raises
    ------
    ConfigError
        When there is not one kind of measurement, or nothing to compare.
    """
    if (saturation is None) == (high is None) or (high is None) != (low is None):
        raise ConfigError("measured variants are either a table of saturation mutagenesis (--saturation) or two FASTA "
                          "files of alleles (--high and --low)")
    if not motifs and not runs:
        raise ConfigError("there is nothing to compare: give MEME files (--motifs) or trained runs (--runs)")
    tables: dict[str, pd.DataFrame] = {}
    if saturation is not None:
        assay = read_saturation_mutagenesis(saturation)
        scores = _scores(assay.genome, assay.variants, motifs, runs, tell, progress)
        found = saturation_benchmark(assay.variants, scores, seed=seed)
        table = found.summary.rename(columns={"spearman_loci": "value"})
        tables = {"experiments": found.experiments, "ceilings": replicate_ceilings(assay.variants)}
        counts = found.summary.iloc[0]
        measure = (f"Score against the measured log2 effect of changes, in {counts['n_experiments']} experiments on "
                   f"{counts['n_loci']} loci; the interval is over loci, and the second table has each experiment.")
        xlabel, chance = "mean Spearman ρ over loci", 0.0
        agree = tables["ceilings"]["spearman"]
        ceiling = [("ceiling", f"{agree.min():.2f} to {agree.max():.2f}",
                    "Spearman ρ of two experiments on one element")] if len(agree) else []
        n = int(found.experiments.drop_duplicates("experiment")["n"].sum())
    else:
        pairs = read_allele_pairs(str(high), str(low))
        # Which allele is called the alternative says nothing; half and half, so that no score gains by always rising.
        raised = np.random.default_rng(seed).permutation(len(pairs.table)) % 2 == 0
        ref = np.where(raised[:, None], pairs.low, pairs.high)
        alt = np.where(raised[:, None], pairs.high, pairs.low)
        at = pairs.table["at"].to_numpy(int)
        row, letters = np.arange(len(at)), np.array(list(BASES + "N"))
        names = [f"pair{i}" for i in row]
        variants = pd.DataFrame({"chrom": names, "pos": at, "ref": letters[ref[row, at]], "alt": letters[alt[row, at]],
                                 "name": pairs.table["name"].astype(str)})
        genome = MemoryGenome(dict(zip(names, ref, strict=True)))
        scores = _scores(genome, variants, motifs, runs, tell, progress)
        table = sign_benchmark(raised, scores, groups=similarity_groups(ref), seed=seed).rename(
            columns={"auroc": "value"})
        measure, xlabel = "Which allele is higher, told by the sign and size of the score; similar sequences are " \
            "resampled together.", "AUROC"
        chance, n, ceiling = 0.5, len(at), []
    table = table.sort_values("value", ascending=False, kind="stable", ignore_index=True)
    files = {name: Path(path) for name, path in (("saturation", saturation), ("high", high), ("low", low))
             if path is not None}
    cards: list[Card] = [score.CARD] if runs else []
    cards += list(motif_effects.CARDS.values()) if motifs else []
    with atomic_folder(out) as temporary:
        for name, frame in ({"benchmark": table} | tables).items():
            frame.to_parquet(temporary / f"{name}.parquet", index=False)
        facts: dict[str, Any] = {"inputs": {n: [str(p), checksum(p)] for n, p in files.items()},
                                 "motifs": [str(m) for m in motifs], "runs": [str(r) for r in runs]}
        write_json(temporary / "provenance.json", provenance(seed=seed, **facts))
        build_report(temporary / "report.html", title="Variants against measurements",
                     subtitle=", ".join(path.name for path in files.values()),
                     summary=[("variants", f"{n:,}", "measured"), *ceiling,
                              ("best", f"{table['value'].iloc[0]:.3f}", f"{xlabel}: {table['method'].iloc[0]}")],
                     sections=[variant_benchmark_section(table, measure=measure, xlabel=xlabel, reference=chance,
                                                         experiments=tables.get("experiments"))],
                     cards=cards, provenance=facts)
    return table, Path(out)


def _scores(genome: Reference, variants: pd.DataFrame, motifs: Sequence[str | Path], runs: Sequence[str | Path],
            tell: Tell, progress: bool) -> dict[str, np.ndarray]:
    """Score of each variant by each method."""
    made: dict[str, np.ndarray] = {}
    database = [motif for file in motifs for motif in read_meme(file)]
    if database:
        tell(f"motifs: {len(database):,} on {len(variants):,} variants …")
        most = motif_effects.motif_effects(genome, variants, database).summarize()
        made |= {"PWM, largest difference": most["d_pwm"].to_numpy(float),
                 "PWM, sum of differences": most["d_pwm_sum"].to_numpy(float),
                 "occupancy, largest difference": most["d_occupancy"].to_numpy(float),
                 "occupancy, sum of differences": most["d_occupancy_sum"].to_numpy(float)}
    for folder in runs:
        job = open_run(folder, trained=True, tell=lambda line: None)
        if not isinstance(job, ReporterRun):
            raise ConfigError(f"{folder} is a run of genes, whose model reads windows around genes; variants without a "
                              "place in a genome are scored by runs of reporter assays")
        tell(f"{job.folder.name}: {len(variants):,} variants …")
        model, _ = registry.load(job.folder / "model", expect=job.config.model.name)
        oracle = Oracle(model, device=job.config.train.device)
        key = ["chrom", "pos", "ref", "alt"]
        once = pd.DataFrame(variants, columns=pd.Index(key)).drop_duplicates(ignore_index=True)
        effects = score.score_variants(oracle, genome, once, length=job.data.codes.shape[1], progress=progress)
        n_tracks = len(effects) // len(once)  # rows are variant by variant
        once["diff"] = effects["diff"].to_numpy(float).reshape(len(once), n_tracks).mean(axis=1)
        made[job.folder.name] = variants[key].merge(once, on=key, how="left")["diff"].to_numpy(float)
    return made
