"""From elements, genes and contacts to a table of links: scored, joined with motifs and variants, held against CRISPRi.

The folder appears when all of it is written:

================== ====================================================================================================
links.parquet      one row a link (`ciscribe.schema.check_links`) with all that made its score
called.tsv.gz      called links with the published column names of ABC (of a combiner: with ours)
called.bedpe       called links as arcs, for genome browsers
benchmark.parquet  methods against the CRISPRi pairs, where there are some; ``curves.parquet`` beside it
report.html        the strongest links, loci, and the benchmark
provenance.json    configuration, versions, counts
================== ====================================================================================================
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ciscribe.card import Card
from ciscribe.config import ElementSignalConfig, LinksConfig, read_config, resolve_root, write_config
from ciscribe.errors import ConfigError, InputError, UnknownNameError, nearest
from ciscribe.intervals import overlapping, region_id
from ciscribe.io.bed import read_bed, read_intervals
from ciscribe.io.contacts import open_contacts
from ciscribe.io.crispri import read_crispri
from ciscribe.io.expression import read_expression
from ciscribe.io.genes import read_genes
from ciscribe.io.genome import Genome
from ciscribe.io.links import read_links, to_abc_columns, write_bedpe, write_links
from ciscribe.io.motifs import read_meme
from ciscribe.io.text import coerce_numbers, existing_file, read_table
from ciscribe.io.tracks import bin_means, read_bedgraph, read_bigwig
from ciscribe.links import abc, contact, crispri
from ciscribe.links.benchmark import CARD as CRISPRI_CARD
from ciscribe.links.benchmark import CrispriBenchmark, benchmark_crispri
from ciscribe.links.combine import CARD as COMBINER_CARD
from ciscribe.links.combine import Combiner, link_features, predict_combiner
from ciscribe.links.join import describe_links
from ciscribe.links.universe import match_genes
from ciscribe.provenance import atomic_folder, atomic_path, provenance, write_json, write_text
from ciscribe.pwm import CARD as SCAN_CARD
from ciscribe.pwm import scan_motifs
from ciscribe.report.build import build_report
from ciscribe.report.links import (
    LinkedLocus,
    link_benchmark_section,
    links_section,
    loci_section,
    score_columns,
)
from ciscribe.report.sections import Section
from ciscribe.schema import check_effects

Tell = Callable[[str], None]

_VIEW = 1.15  # of the farthest link shown
_MOST_LINKED = 400  # elements that are scanned for motifs at a time


def score_config(path: str | Path, out: str | Path | None = None, *, tell: Tell = print, progress: bool = True) -> Path:
    """Score the links of a configuration and report them.

    Parameters
    ----------
    path
        YAML file; see `ciscribe.config.LinksConfig` and ``configs/links_chr22.yaml``.
    out
        Folder; ``runs/<name>`` unless given.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConfigError, DataMissingError, InputError, SchemaError
        For a configuration or files that cannot be used.
    """
    config = read_config(path, LinksConfig)
    root = resolve_root(config.root, Path(path).parent.absolute()).resolve()
    config = config.model_copy(update={"root": str(root)})
    genes = _genes(config, root)
    wanted = _wanted(config, genes)
    elements = _elements(config, root, genes)
    tell(f"elements: {len(elements):,} ({', '.join(f'{n:,} {c}' for c, n in elements['class'].value_counts().items())})"
         f"; genes: {len(genes):,}")
    links = _score(config, root, elements, genes)
    threshold = _threshold(config, links)
    called = abc.select_links(links, threshold, score="score" if config.combiner else "abc_reported")
    tell(f"links: {len(links):,} kept, {len(called):,} called from a score of {threshold:.3g}")
    called = _described(config, root, called, tell)
    tested = _tested(config, root, genes)
    cautions = [] if tested is None else _cautions(config.name, links, tested.pairs)
    benchmark = None if tested is None else _benchmark(config, links, tested, tell)
    for line in cautions:
        tell(f"caution: {line}")
    folder = Path(out) if out is not None else Path("runs") / config.name
    with atomic_folder(folder) as temporary:
        write_text(temporary / "config.yaml", write_config(config))
        write_links(temporary / "links.parquet", links)
        with atomic_path(temporary / "called.tsv.gz") as file:
            # A combiner's probability has no column in the published tables.
            shown = called if config.combiner else to_abc_columns(called)
            shown.to_csv(file, sep="\t", index=False, float_format="%.6f")
        write_bedpe(temporary / "called.bedpe", called)
        if benchmark is not None:
            benchmark.table.to_parquet(temporary / "benchmark.parquet", index=False)
            benchmark.curves.to_parquet(temporary / "curves.parquet", index=False)
        facts = {"elements": len(elements), "genes": len(genes), "links": len(links), "called": len(called),
                 "threshold": threshold, **{k: v for k, v in links.attrs.items() if k != "n_elements"}}
        write_json(temporary / "provenance.json", provenance(seed=config.seed, **facts, cautions=cautions))
        section = _benchmark_section(benchmark, cautions)
        _report(temporary, config, root, called, genes, elements, wanted, threshold, tested, section, facts)
    return folder


def compare_links(files: Mapping[str, str | Path], pairs: str | Path, genes: str | Path, out: str | Path, *,
                  columns: dict[str, str] | None = None, cell: str | None = None, match_on: str = "gene_name",
                  tell: Tell = print) -> tuple[pd.DataFrame, Path]:
    """Hold tables of links against CRISPRi experiments, beside distance and the nearest gene.

    Parameters
    ----------
    files
        Name → table of links (ours, of ABC or of ENCODE-rE2G).
    pairs
        Tested pairs; see `ciscribe.io.crispri.read_crispri`.
    genes
        Gene annotation: the universe, with each gene's TSS.
    columns
        Of a gene table without usual names.
    cell
        Cell type of the pairs that the predictions are for, whatever they call it; all of them unless given.
    match_on
        ``gene_name`` or ``gene_id``.

    Returns
    -------
    DataFrame, Path
        One row a predictor, and the folder with ``benchmark.parquet``, ``curves.parquet`` and ``report.html``.
    """
    universe = read_genes(genes, columns=columns).drop_duplicates(match_on)
    tested, counts = crispri.select_pairs(read_crispri(pairs), crispri.Protocol(match_on=match_on), genes=universe)
    protocol = _protocol(tested, match_on)
    tell(f"pairs: {counts['pairs']:,} count, {counts['positives']:,} regulated, of {counts['tested']:,} tested")
    cautions: list[str] = []
    table, predictors = crispri.baselines(tested, universe, match_on=match_on, contact=contact.power_law)
    for name, file in files.items():
        found = read_links(file, gene="symbol" if match_on == "gene_name" else "id")
        cautions += _cautions(name, found, tested)
        found = found if match_on in found else found.assign(**{match_on: found["gene_id"]})
        asked = {name: crispri.Predictor("score")}
        cells = None if cell is None else dict.fromkeys(map(str, found["cell"].unique()), cell)
        table[name] = crispri.match_predictions(tested, found, asked, match_on=match_on, cells=cells)[name]
        predictors |= asked
    for line in cautions:
        tell(f"caution: {line}")
    result = benchmark_crispri(table, predictors, protocol)
    with atomic_folder(out) as temporary:
        result.table.to_parquet(temporary / "benchmark.parquet", index=False)
        result.curves.to_parquet(temporary / "curves.parquet", index=False)
        facts = {"pairs": str(pairs), "files": {k: str(v) for k, v in files.items()}, "counts": counts,
                 "protocol": protocol.describe()}
        write_json(temporary / "provenance.json", provenance(seed=protocol.seed, **facts, cautions=cautions))
        build_report(temporary / "report.html", title="Links against CRISPRi", subtitle=Path(pairs).name,
                     summary=[("pairs", f"{counts['pairs']:,}", f"that count, of {counts['tested']:,} tested"),
                              ("regulated", f"{counts['positives']:,}",
                               f"{counts['positives'] / counts['pairs']:.1%}, which guessing reaches")],
                     sections=[_benchmark_section(result, cautions)], cards=[CRISPRI_CARD], provenance=facts)
    whole = result.table.loc[result.table["stratum"] == "all"]
    return whole.sort_values(["auprc", "average_precision"], ascending=False, kind="stable"), Path(out)


# ---- what is read


def _genes(config: LinksConfig, root: Path) -> pd.DataFrame:
    genes = read_genes(root / config.genes.path, columns=config.genes.columns)
    if config.expression is None:
        return genes if "expression" in genes else genes.assign(expression=np.nan)
    given = config.expression
    table = read_expression(root / given.path, gene_id=given.gene_id, columns=given.columns,
                            counts_length=given.counts_length)
    mean = dict(zip(table.index.astype(str), table.to_numpy(float).mean(axis=1), strict=True))
    found = np.array([mean.get(i, mean.get(name, np.nan)) for i, name in zip(
        genes["gene_id"].astype(str), genes["gene_name"].astype(str), strict=True)], dtype=float)
    if not np.isfinite(found).any():
        raise InputError(f"no gene of {config.genes.path} is in the expression table {given.path}: genes are called "
                         f"{', '.join(genes['gene_id'].head(3))} there, {', '.join(list(mean)[:3])} here")
    return genes.assign(expression=found)


def _wanted(config: LinksConfig, genes: pd.DataFrame) -> list[str]:
    """Ids of the genes that the report is asked for, by id or name."""
    given = pd.Series(config.report.genes, dtype=str)
    found = match_genes(given, genes, missing="drop")
    unknown = given[found.isna()].tolist()
    if unknown:
        known = pd.concat([genes["gene_name"], genes["gene_id"]]).astype(str)
        close = nearest(unknown[0], known).split("options:")[0]
        raise ConfigError(f"report.genes are names or ids of {config.genes.path}; {len(unknown)} of {len(given)} are "
                          f"not among its {len(genes):,} genes; first: '{unknown[0]}'; {close}correct it, or leave it "
                          "out")
    return found.tolist()


def _elements(config: LinksConfig, root: Path, genes: pd.DataFrame) -> pd.DataFrame:
    """Elements with their activity."""
    path = root / config.elements.path
    blacklist = None if config.blacklist is None else read_bed(root / config.blacklist)
    given = read_intervals(path)
    if config.elements.peaks:
        if any(s is not None and s.counts is not None for s in (config.accessibility, config.h3k27ac)):
            raise ConfigError("elements made of peaks are other intervals than those that counts were made on; give a "
                              "bigwig or bedgraph, or set elements.peaks: false")
        elements = abc.candidate_elements(given, _signal(config.accessibility, root, given), genes,
                                          n_strongest=config.elements.n_strongest, blacklist=blacklist)
    else:
        elements = given.loc[:, ["chrom", "start", "end"]].assign(**{"class": abc.classify(given, genes)})
        if "class" in given:
            elements["class"] = given["class"].to_numpy()
    totals: dict[str, float] = {}
    for name, signal in (("accessibility", config.accessibility), ("h3k27ac", config.h3k27ac)):
        if signal is not None:
            value = _signal(signal, root, elements)
            elements[name] = value * (1e6 / signal.total) if signal.total is not None else value
            totals[name] = 1e6  # reads per million from here on
    reference = None if config.normalize_to is None else _reference(root / config.normalize_to)
    return abc.activity(elements, totals=totals, reference=reference, assay=config.assay)


def _signal(signal: ElementSignalConfig, root: Path, elements: pd.DataFrame) -> np.ndarray:
    """Reads (or whatever the track adds up to) on each element."""
    if signal.counts is not None:
        table = read_bed(root / signal.counts)
        known = dict(zip(region_id(table), coerce_numbers(table["name"]), strict=True))
        value = np.array([known.get(name, np.nan) for name in region_id(elements)], dtype=float)
        if np.isnan(value).any():
            i = int(np.isnan(value).argmax())
            raise InputError(f"{int(np.isnan(value).sum()):,} of {len(value):,} elements have no count in "
                             f"{signal.counts}; first: {region_id(elements).iloc[i]}; counts are of the same "
                             "intervals: chrom start end count")
        return value
    track = read_bigwig(root / signal.bigwig) if signal.bigwig is not None else \
        read_bedgraph(root / str(signal.bedgraph))
    value = np.zeros(len(elements))
    chrom = elements["chrom"].to_numpy()
    width = (elements["end"] - elements["start"]).to_numpy()
    for name in np.unique(chrom):
        for length in np.unique(width[chrom == name]):
            rows = np.flatnonzero((chrom == name) & (width == length))
            runs = track.runs.get(str(name))
            if runs is not None:
                starts = elements["start"].to_numpy()[rows]
                value[rows] = bin_means(runs, starts, 1, int(length))[:, 0] * length
    return value


def _reference(path: Path) -> pd.DataFrame:
    table = read_table(path, "activities by rank")
    return table.assign(**{c: coerce_numbers(table[c]) for c in table.columns if c != "enh_class"})


# ---- what is scored


def _score(config: LinksConfig, root: Path, elements: pd.DataFrame, genes: pd.DataFrame) -> pd.DataFrame:
    """ABC, or a trained combiner's probability on its pairs."""
    combiner = None if config.combiner is None else Combiner.from_json(
        existing_file(root / config.combiner, "combiner").read_text(encoding="utf-8"))
    gamma = contact.GAMMA if config.gamma is None else config.gamma
    scale = contact.SCALE if config.scale is None else config.scale
    given = config.contacts
    contacts = None if given is None else open_contacts(
        root / given.path, resolution=given.resolution, balanced=given.balanced, chrom=given.chrom,
        normalization=given.normalization)
    links = abc.score_abc(elements, genes, contacts=contacts, contact_source="hic" if given is None else given.source,
                          max_distance=config.max_distance, cell=config.cell, min_score=config.min_score,
                          gamma=gamma, scale=scale)
    if combiner is None:
        return links
    pairs = links.merge(elements.drop(columns=["class", "activity"]), on=["chrom", "start", "end"])
    features = link_features(pairs, genes, elements=elements,
                             contact=lambda distance: contact.power_law(distance, gamma=gamma, scale=scale))
    missing = [name for name in combiner.features if name not in features]
    if missing:
        raise ConfigError(f"{len(missing)} of {len(combiner.features)} features of the combiner {config.combiner} "
                          f"cannot be made of these files: {', '.join(missing)}; there are {', '.join(features)}. "
                          f"{'Name the H3K27ac signal (h3k27ac). ' if 'h3k27ac' in missing else ''}Fit a combiner to "
                          "features that are there (ciscribe.links.combine.fit_combiner), or use this one from Python "
                          "(predict_combiner) on a table with all of them")
    attrs = links.attrs
    links = pairs.assign(score=predict_combiner(combiner, features))
    links.attrs = attrs | {"method": "combiner", "combiner": str(config.combiner),
                           "trained_on": list(combiner.trained_on)}
    return links


def _threshold(config: LinksConfig, links: pd.DataFrame) -> float:
    """The score that calls: as configured, as published, or the upper 5 % of what was scored."""
    if config.threshold is not None:
        return config.threshold
    if config.combiner is not None:
        return 0.5
    source = "powerlaw" if config.contacts is None else config.contacts.source
    try:
        return abc.threshold_for(config.assay, config.h3k27ac is not None, source)
    except UnknownNameError:
        return float(links["score"].quantile(0.95))


def _described(config: LinksConfig, root: Path, called: pd.DataFrame, tell: Tell) -> pd.DataFrame:
    """Called links with the motifs and the scored variants in their elements."""
    hits = effects = None
    if config.motifs is not None:
        if config.genome is None:
            raise ConfigError("motifs are looked for in the sequence of elements: name the FASTA as genome")
        files = [config.motifs] if isinstance(config.motifs, str) else config.motifs
        hits = _hits(Genome(root / config.genome), called, [m for f in files for m in read_meme(root / f)])
        tell(f"motifs: {len(hits):,} hits in the elements of called links")
    score = "diff"
    if config.effects is not None:
        effects, score = _effects(root / config.effects)
    if hits is None and effects is None:
        return called
    attrs = called.attrs
    out = describe_links(called, hits=hits, effects=effects, score=score)
    out.attrs = attrs
    return out


def _effects(path: Path) -> tuple[pd.DataFrame, str]:
    """Scored variants, and the first of their scores."""
    table = pd.read_parquet(existing_file(path, "scored variants"))
    check_effects(table)
    scores = score_columns(table)
    if not scores:
        raise InputError(f"{path} holds no score; effects.parquet of ciscribe variants score has one or more")
    return table, scores[0]


def _hits(genome: Genome, links: pd.DataFrame, motifs: list[Any]) -> pd.DataFrame:
    """Motif hits in elements, on the genome."""
    elements = links[["chrom", "start", "end"]].drop_duplicates(ignore_index=True)
    found = []
    for lo in range(0, len(elements), _MOST_LINKED):
        part = elements.iloc[lo:lo + _MOST_LINKED].reset_index(drop=True)
        length = int((part["end"] - part["start"]).max())
        codes = np.full((len(part), length), 4, np.uint8)
        for i, (chrom, start, end) in enumerate(part.itertuples(index=False)):
            codes[i, :end - start] = genome.fetch(chrom, start, end)
        table = scan_motifs(codes, motifs)
        at = part.iloc[table["region"].to_numpy(int)].reset_index(drop=True)
        found.append(table.assign(chrom=at["chrom"], start=table["start"] + at["start"],
                                  end=table["end"] + at["start"]).drop(columns="region"))
    return pd.concat(found, ignore_index=True)


class _Tested(NamedTuple):
    """CRISPRi pairs that count, labelled; the genes, each once; and what names a gene in both."""

    pairs: pd.DataFrame
    counts: dict[str, int]
    universe: pd.DataFrame
    match_on: str


def _tested(config: LinksConfig, root: Path, genes: pd.DataFrame) -> _Tested | None:
    if config.crispri is None:
        return None
    pairs = read_crispri(root / config.crispri)
    match_on = "gene_id" if set(pairs["gene_id"]) & set(genes["gene_id"]) else "gene_name"
    universe = genes.drop_duplicates(match_on)
    chosen, counts = crispri.select_pairs(pairs, crispri.Protocol(match_on=match_on), genes=universe)
    return _Tested(chosen, counts, universe, match_on)


def _cautions(name: str, links: pd.DataFrame, pairs: pd.DataFrame) -> list[str]:
    """What keeps the figures of these links from being what they seem: pairs never predicted, and pairs learnt from."""
    lines, of, on = [], f"of {len(pairs):,} pairs are on chromosomes", pairs["chrom"]
    absent = on.loc[~on.isin(list(links["chrom"]))]
    if len(absent):
        lines.append(f"{len(absent):,} {of} without any link in {name} (first: {absent.iloc[0]}), where its 0 "
                     "says nothing; take pairs of the chromosomes that it covers")
    seen = on.loc[on.isin(list(links.attrs.get("trained_on", ())))]
    if len(seen):
        lines.append(f"{len(seen):,} {of} that the combiner of {name} was trained on (first: {seen.iloc[0]}), "
                     "so its figures can be better than on what it has not seen; those of "
                     "ciscribe.links.combine.cross_predict are held out")
    return lines


def _benchmark(config: LinksConfig, links: pd.DataFrame, tested: _Tested, tell: Tell) -> CrispriBenchmark:
    pairs, counts, universe, match_on = tested
    asked = {"abc": crispri.Predictor("abc")}
    if config.combiner is not None:
        asked = {"combiner": crispri.Predictor("score", "max")} | asked
    names = pairs["cell"].drop_duplicates()
    cells = {config.cell: str(names.iloc[0])} if len(names) == 1 else None
    matched = crispri.match_predictions(pairs, links, asked, match_on=match_on, cells=cells)
    matched, predictors = crispri.baselines(matched, universe, match_on=match_on, contact=contact.power_law)
    result = benchmark_crispri(matched, asked | predictors, _protocol(matched, match_on, config.seed))
    first = result.table.loc[result.table["stratum"] == "all"].iloc[0]
    tell(f"CRISPRi: {counts['pairs']:,} pairs, {counts['positives']:,} regulated; AUPRC of {first['predictor']} "
         f"{first['auprc']:.3f}")
    return result


def _protocol(pairs: pd.DataFrame, match_on: str, seed: int = 0) -> crispri.Protocol:
    """The community's, without bins of distance where some bin has no regulated pair."""
    protocol = crispri.Protocol(match_on=match_on, seed=seed)
    found, _ = np.histogram(pairs.loc[pairs["label"].to_numpy(bool), "distance"], protocol.distance_bins)
    return protocol if found.all() else replace(protocol, distance_bins=())


# ---- what is shown


def _benchmark_section(result: CrispriBenchmark | None, cautions: Sequence[str]) -> Section | None:
    if result is None:
        return None
    table = result.table.rename(columns={"predictor": "method", "auprc_low": "low", "auprc_high": "high"})
    whole = table.loc[table["stratum"] == "all"]
    bins = table.loc[table["stratum"].str.contains("kb")].rename(columns={
        "stratum": "bin", "n_pairs": "n", "n_positive": "n_positive"})
    curves = result.curves.loc[result.curves["stratum"] == "all"].rename(columns={"predictor": "method"})
    return link_benchmark_section(whole, curves, by_distance=bins, n_pairs=int(whole["n_pairs"].iloc[0]),
                                  n_positive=int(whole["n_positive"].iloc[0]), cautions=cautions)


def _report(folder: Path, config: LinksConfig, root: Path, called: pd.DataFrame, genes: pd.DataFrame,
            elements: pd.DataFrame, wanted: list[str], threshold: float, tested: _Tested | None,
            benchmark: Section | None, facts: dict[str, Any]) -> None:
    names = dict(zip(genes["gene_id"], genes["gene_name"], strict=True))
    distal = called.loc[~called["is_self_promoter"].to_numpy(bool)]
    summary = [("elements", f"{len(elements):,}", f"{int((elements['class'] == 'promoter').sum()):,} promoters"),
               ("genes", f"{len(genes):,}", f"{distal['gene_id'].nunique():,} with a called link"),
               ("called links", f"{len(distal):,}", f"score {threshold:.3g} or more, own promoters not counted"),
               ("elements a gene", f"{len(distal) / max(1, distal['gene_id'].nunique()):.1f}", "of genes with a link")]
    cards: list[Card] = [abc.CARD, contact.CARD]
    cards += [COMBINER_CARD] if config.combiner is not None else []
    cards += [SCAN_CARD] if config.motifs is not None else []
    cards += [CRISPRI_CARD] if benchmark is not None else []
    effects, score = (None, "diff") if config.effects is None else _effects(root / config.effects)
    loci = _loci(config, wanted, distal, genes, elements, None if tested is None else tested.pairs, effects, score)
    build_report(folder / "report.html", title=config.report.title or f"{config.name}: links",
                 subtitle=f"{facts['method']} in {config.cell or 'one cell type'}", summary=summary,
                 sections=[links_section(distal, names=names), loci_section(loci), benchmark],
                 cards=cards, provenance=facts)


def _loci(config: LinksConfig, wanted: list[str], called: pd.DataFrame, genes: pd.DataFrame, elements: pd.DataFrame,
          tested: pd.DataFrame | None, effects: pd.DataFrame | None, score: str) -> list[LinkedLocus]:
    """The genes that are asked for, else those with most regulated pairs, then those with most called links."""
    by_id = genes.set_index("gene_id")
    if not wanted:
        sure = list(map(str, called["gene_id"].value_counts().index))
        if tested is not None:
            found = tested.loc[tested["label"].to_numpy(bool)]
            ids = dict(zip(genes["gene_name"], genes["gene_id"], strict=True))
            regulated = found["gene_id"].where(found["gene_id"].isin(by_id.index), found["gene_name"].map(ids))
            sure = list(map(str, regulated.value_counts().index)) + sure
        wanted = list(dict.fromkeys(sure))[:config.report.n_loci]
    loci = []
    for gene_id in wanted:
        gene = by_id.loc[gene_id]
        name = gene["gene_name"]
        links = called.loc[called["gene_id"] == gene_id, ["chrom", "start", "end", "score"]]
        same = None if tested is None else (tested["gene_name"] == name) | (tested["gene_id"] == gene_id)
        own = None if tested is None else tested.loc[same, ["chrom", "start", "end", "label"]]
        own = own if own is not None and len(own) else None
        if own is not None:  # a link is as the pair that it overlaps
            row, pair = overlapping(links, own)
            label = np.full(len(links), None, dtype=object)
            label[row] = own["label"].to_numpy(bool)[pair]
            links = links.assign(label=label)
        shown = pd.concat([links, own]) if own is not None else links
        if not len(shown) and not config.report.genes:
            continue
        tss = int(gene["tss"])
        reach = _VIEW * float((shown[["start", "end"]] - tss).abs().to_numpy().max(initial=5_000))
        start, end = max(0, int(tss - reach)), int(tss + reach)
        loci.append(LinkedLocus(str(gene["chrom"]), start, end, str(gene_id), str(name), tss, links, genes,
                                elements=elements, tested=own, variants=effects, value=score))
    return loci
