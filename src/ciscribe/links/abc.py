"""Activity by contact: what an element gives a gene is how active it is times how often they meet.

An element's share of everything that reaches a gene is its score. `candidate_elements` and `activity` make the
elements of the published pipeline from peaks and read counts, `score_abc` scores every pair within reach.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Num
from numpy import ndarray
from scipy import sparse
from scipy.stats import rankdata

from ciscribe.card import Card
from ciscribe.errors import SchemaError, UnknownNameError, nearest
from ciscribe.intervals import merge, overlap_bp, region_id
from ciscribe.io.contacts import Contacts
from ciscribe.links.contact import GAMMA, SCALE, PairContact, contact_map, pair_contact
from ciscribe.links.universe import check_build, gene_universe
from ciscribe.schema import check_genes, check_intervals

HALF = 250
"""bp on each side of a summit or a TSS that make an element."""
PROMOTER_HALF = 500
"""bp on each side of a TSS within which an element is a promoter, and a gene's own."""
EXPRESSED = 1.0
ACTIVE_PROMOTER = 0.30

THRESHOLDS = {
    ("dhs", True, "hic"): 0.027, ("dhs", False, "hic"): 0.024,
    ("dhs", True, "average"): 0.016, ("dhs", True, "powerlaw"): 0.017,
    ("dhs", False, "average"): 0.016, ("dhs", False, "powerlaw"): 0.016,
    ("atac", True, "hic"): 0.025, ("atac", True, "average"): 0.016, ("atac", True, "powerlaw"): 0.016,
    ("atac", False, "hic"): 0.021, ("atac", False, "average"): 0.012, ("atac", False, "powerlaw"): 0.013,
}
"""Published score at which 70 % of regulated CRISPRi pairs are found: (assay, with H3K27ac, contact) → threshold."""

CARD = Card(
    name="abc",
    kind="links",
    summary="Scores an element for a gene by activity times contact, as a share of all elements in reach.",
    paper="Fulco et al., Nature Genetics 2019, doi:10.1038/s41588-019-0538-0; Nasser et al., Nature 2021, "
          "doi:10.1038/s41586-021-03446-x",
    code="broadinstitute/ABC-Enhancer-Gene-Prediction@36e212e",
    differences=(
        "The score is the normalized one (`abc`, sums to 1 over a gene's elements); the published one, in which a "
        "gene's own promoter is set to 1 afterwards, is the column `abc_reported`.",
        "Every column is there whatever was measured; `contact_source` says what the contact of a row is.",
        "Without a reference table activities are not quantile-normalized, so that any species can be scored.",
        "A map of counts is balanced here by iterative correction instead of needing SCALE-normalized values.",
    ),
)


def candidate_elements(peaks: pd.DataFrame, counts: Num[ndarray, " P"], genes: pd.DataFrame, *,
                       n_strongest: int = 150_000, half: int = HALF, blacklist: pd.DataFrame | None = None,
                       chrom_sizes: dict[str, int] | None = None) -> pd.DataFrame:
    """Elements to be scored: the strongest peaks and all promoters, each about 500 bp.

    The `n_strongest` peaks by read count are cut to summit ± `half`, merged where they touch, and dropped where they
    overlap the blacklist; then TSS ± `half` of every gene is added (blacklisted or not) and all is merged.

    Parameters
    ----------
    peaks
        Intervals; `summit` in bp from the start where there is one (−1 or absent: the middle), as in narrowPeak.
    counts
        Reads of each peak. Among equal counts the earlier peak wins.
    genes
        Genes with their TSS.
    blacklist
        Intervals where reads pile up for other reasons.
    chrom_sizes
        To cut elements at the ends of chromosomes, and to notice another build.

    Returns
    -------
    DataFrame
        ``chrom, start, end, class``: disjoint, sorted; `class` as `classify` gives it.

    Raises
    ------
    SchemaError
        If counts are negative or NaN, do not fit the peaks, or peaks and genes are not of one build.

    References
    ----------
    Fulco et al. 2019, doi:10.1038/s41588-019-0538-0.
    """
    check_intervals(peaks, name="peaks")
    check_genes(genes)
    counts = np.asarray(counts, dtype=np.float64)
    if len(counts) != len(peaks):
        raise SchemaError(f"counts must have one value a peak; got {len(counts):,} for {len(peaks):,} peaks")
    _need_finite(counts, "read count", peaks)
    if chrom_sizes is not None:
        check_build(peaks, chrom_sizes, "peaks")
    strongest = np.sort(np.argsort(-counts, kind="stable")[:n_strongest])
    chosen = peaks.iloc[strongest]
    length = (chosen["end"] - chosen["start"]).to_numpy()
    summit = chosen["summit"].to_numpy() if "summit" in chosen.columns else np.full(len(chosen), -1)
    middle = chosen["start"].to_numpy() + np.where(summit >= 0, summit, length // 2)
    around = _around(chosen["chrom"].to_numpy(), middle, half, chrom_sizes)
    around = merge(around)
    if blacklist is not None:
        around = around.loc[overlap_bp(around, blacklist) == 0]
    promoters = _around(genes["chrom"].to_numpy(), genes["tss"].to_numpy(), half, chrom_sizes)
    out = merge(pd.concat([around, promoters], ignore_index=True)).reset_index(drop=True)
    return out.assign(**{"class": classify(out, genes)})


def classify(elements: pd.DataFrame, genes: pd.DataFrame) -> ndarray:
    """Class of each element: ``promoter`` (within 500 bp of a TSS), ``genic`` (in a gene) or ``intergenic``."""
    promoters = _around(genes["chrom"].to_numpy(), genes["tss"].to_numpy(), PROMOTER_HALF, None)
    genic = np.where(overlap_bp(elements, genes) > 0, "genic", "intergenic")
    return np.where(overlap_bp(elements, promoters) > 0, "promoter", genic).astype(object)


def activity(elements: pd.DataFrame, *, totals: Mapping[str, float] | None = None,
             reference: pd.DataFrame | None = None, assay: Literal["dhs", "atac"] = "dhs") -> pd.DataFrame:
    """Activity of each element: geometric mean of accessibility and H3K27ac, or accessibility alone.

    With a reference, values are first replaced by those that an element of the same rank has there, separately for
    promoters and other elements, so that libraries of different depth and quality give the same scale. Equal values
    share their mean rank; ranks beyond the table are extrapolated, below 0 cut to 0.

    Parameters
    ----------
    elements
        Intervals with ``class, accessibility`` and, where measured, ``h3k27ac``.
    totals
        Reads of each library, e.g. ``{"accessibility": 379_428, "h3k27ac": 113_284}``: columns are counts and become
        reads per million. None: they are reads per million already.
    reference
        Table with ``enh_class`` (``promoter``, ``nonpromoter``), ``rank, DHS.RPM, H3K27ac.RPM``, as published
        (EnhancersQNormRef.K562.txt). None leaves values as they are: for other species, or to use raw activity.
    assay
        What the accessibility is; ``atac`` uses the reference's ATAC.RPM where it has one, else DHS.RPM.

    Returns
    -------
    DataFrame
        The elements with ``accessibility_rpm, accessibility_normalized, h3k27ac_rpm, h3k27ac_normalized`` (NaN where
        not measured) and ``activity``.

    Raises
    ------
    SchemaError
        If a value is NaN or negative (count and first element), or a column or total is missing.

    References
    ----------
    Fulco et al. 2019, doi:10.1038/s41588-019-0538-0; Nasser et al. 2021, doi:10.1038/s41586-021-03446-x.
    """
    check_intervals(elements, name="elements")
    for column in ("class", "accessibility"):
        if column not in elements.columns:
            raise SchemaError(f"activity needs the column '{column}' of elements; got "
                              f"{', '.join(map(str, elements.columns))}")
    out = elements.copy()
    promoter = (out["class"] == "promoter").to_numpy()
    for name, theirs in (("accessibility", f"{assay.upper()}.RPM"), ("h3k27ac", "H3K27ac.RPM")):
        if name not in out.columns:
            out[f"{name}_rpm"] = out[f"{name}_normalized"] = np.nan
            continue
        value = out[name].to_numpy(dtype=np.float64)
        _need_finite(value, name, out)
        if totals is not None:
            if not totals.get(name, 0) > 0:
                raise SchemaError(f"totals must give the reads of '{name}', above 0; got {dict(totals)}")
            value = value * (1e6 / totals[name])
        out[f"{name}_rpm"] = value
        if reference is not None:
            column = theirs if theirs in reference.columns else "DHS.RPM"
            value = _quantile_normalize(value, promoter, reference, column)
        out[f"{name}_normalized"] = value
    own = out["accessibility_normalized"].to_numpy(float)
    out["activity"] = np.sqrt(own * out["h3k27ac_normalized"].to_numpy(float)) if "h3k27ac" in out.columns else own
    return out


def _quantile_normalize(value: Float[ndarray, " E"], promoter: Bool[ndarray, " E"], reference: pd.DataFrame,
                        column: str) -> Float[ndarray, " E"]:
    """Value that the reference has at the same rank from the top, promoters and others apart."""
    missing = [c for c in ("enh_class", "rank", column) if c not in reference.columns]
    if missing:
        raise SchemaError(f"the reference of activities lacks the column '{missing[0]}'; "
                          f"{nearest(missing[0], map(str, reference.columns))}")
    out = np.zeros(len(value))
    for name, rows in (("promoter", promoter), ("nonpromoter", ~promoter)):
        table = reference.loc[reference["enh_class"] == name].sort_values("rank")
        if len(table) < 2:
            raise SchemaError(f"the reference of activities needs two rows or more of enh_class '{name}'; "
                              f"got {len(table)}")
        n = int(rows.sum())
        rank = n - rankdata(value[rows])
        x, y = table["rank"].to_numpy(float), table[column].to_numpy(float)
        i = np.clip(np.searchsorted(x, rank) - 1, 0, len(x) - 2)  # ends continue as straight lines
        out[rows] = y[i] + (rank - x[i]) * (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    return np.maximum(out, 0)


def promoter_activity_quantile(accessibility: Num[ndarray, " G"], h3k27ac: Num[ndarray, " G"] | None = None
                               ) -> Float[ndarray, " G"]:
    """Quantile of each gene's promoter activity among all genes, from reads in the 1 kb around its TSS.

    The product of the quantiles of both assays, ranked again; ties share their mean rank. Genes at 0.30 and above
    count as expressed where expression was not measured.
    """
    quantile = rankdata(accessibility) / len(accessibility)
    if h3k27ac is not None:
        quantile = quantile * (rankdata(h3k27ac) / len(h3k27ac))
    return rankdata(quantile) / len(quantile)


def threshold_for(assay: str, h3k27ac: bool, contact_source: str) -> float:
    """Published score above which a pair is called, for what was measured (`THRESHOLDS`).

    Raises
    ------
    UnknownNameError
        If there is none for this combination; choose a quantile of your own scores then.
    """
    key = (assay, bool(h3k27ac), contact_source)
    if key not in THRESHOLDS:
        have = [f"{a} {'with' if k else 'without'} H3K27ac, {c}" for a, k, c in THRESHOLDS]
        wanted = f"{assay} {'with' if h3k27ac else 'without'} H3K27ac, {contact_source}"
        raise UnknownNameError(f"no published threshold for '{wanted}'; {nearest(wanted, have)}")
    return THRESHOLDS[key]


def score_abc(elements: pd.DataFrame, genes: pd.DataFrame, *, contacts: Contacts | None = None,
              contact_source: Literal["hic", "average"] = "hic", max_distance: int = 5_000_000, cell: str = "",
              min_score: float = 0.0, gamma: float = GAMMA, scale: float = SCALE,
              chrom_sizes: dict[str, int] | None = None) -> pd.DataFrame:
    """Score every element for every gene within reach by activity times contact.

    ``abc = A·C / Σ A·C``, the sum over **all** elements whose middle lies within `max_distance` of the gene's TSS.

    Parameters
    ----------
    elements
        Intervals with a finite, not negative ``activity`` and, where known, ``class`` (else from the genes).
    genes
        Genes; `expression` and `promoter_activity_quantile` where there are such columns. The set of genes and their
        TSS is part of the result: its checksum is in ``links.attrs["gene_universe"]``.
    contacts
        Map of the cell type; None takes the power law. Bins of 5 kb are what constants and thresholds were made for.
    contact_source
        ``hic``: the map is of this cell type; ``average``: of several.
    max_distance
        bp between the element's middle and the TSS.
    cell
        Cell type, for the column.
    min_score
        Pairs whose `abc_reported` is lower are left out of the result (never out of the sums). A human genome has
        about ten million pairs within 5 Mb (5 GB of table); 0.01 keeps a few percent of them.
    gamma, scale
        Power law of the cell type (`links.contact.fit_power_law` for another).
    chrom_sizes
        To notice elements of another build.

    Returns
    -------
    DataFrame
        Links, sorted by chromosome, gene (in the order of `genes`) and position: ``chrom, start, end, gene_id, cell,
        distance, score`` (= `abc`), ``gene_name, tss, class, activity, contact, contact_source`` (``hic``, ``average``
        or ``powerlaw``, row by row) ``, powerlaw_contact, powerlaw_contact_reference, hic_contact, hic_contact_scaled,
        hic_pseudocount`` (NaN without a map) ``, abc_numerator, abc, abc_reported`` (1 for a gene's own promoters)
        ``, powerlaw_numerator, powerlaw_abc, is_self_promoter, expression, promoter_activity_quantile`` (NaN where
        unknown) ``, is_expressed`` (expression above 1 or quantile at least 0.30; True where neither is known).
        ``attrs``: `gene_universe`, `method`, `contacts`, and the parameters.

    Raises
    ------
    SchemaError
        If an activity is missing, NaN or negative (count and first element), elements or genes repeat, or the elements
        are of another build than the genes.
    InputError
        If the contact file lacks a chromosome on which there are pairs to score.

    Notes
    -----
    Works chromosome by chromosome: memory is that of the largest one, and of the rows that are kept.

    References
    ----------
    Fulco et al. 2019, doi:10.1038/s41588-019-0538-0; Nasser et al. 2021, doi:10.1038/s41586-021-03446-x.
    """
    check_intervals(elements, name="elements")
    check_genes(genes)
    if "activity" not in elements.columns:
        raise SchemaError("elements need a column activity (links.abc.activity makes it of accessibility and H3K27ac); "
                          f"got {', '.join(map(str, elements.columns))}")
    _need_finite(elements["activity"].to_numpy(dtype=np.float64), "activity", elements)
    repeats = elements.duplicated(["chrom", "start", "end"]).to_numpy()
    if repeats.any():
        raise SchemaError(f"{int(repeats.sum()):,} of {len(elements):,} elements repeat; first: "
                          f"{region_id(elements).iloc[int(repeats.argmax())]}; they would count twice in the sums")
    check_build(elements, chrom_sizes, "elements", genes)
    if "class" not in elements.columns:
        elements = elements.assign(**{"class": classify(elements, genes)})
    parts = []
    for chrom, own in genes.groupby("chrom", sort=True):
        here = elements.loc[(elements["chrom"] == chrom).to_numpy()].sort_values("start", kind="stable")
        pairs = _pairs(here, own, max_distance)
        if not len(pairs[0]):
            continue
        hic = contact_map(contacts, str(chrom)) if contacts is not None else None
        resolution = contacts.resolution if contacts is not None else 1
        parts.append(_score_chromosome(here, own, pairs, hic, resolution, contact_source, cell, min_score, gamma,
                                       scale))
    if not parts:
        raise SchemaError(f"no element lies within {max_distance:,} bp of a gene on its chromosome: elements are on "
                          f"{', '.join(map(str, elements['chrom'].unique()[:5]))}, genes on "
                          f"{', '.join(map(str, genes['chrom'].unique()[:5]))}")
    # One block a column: pandas would otherwise copy millions of rows twice to join columns of one type.
    links = pd.DataFrame({c: np.concatenate([part.pop(c) for part in parts]) for c in list(parts[0])}, copy=False)
    links.attrs = {
        "method": "abc", "gene_universe": gene_universe(genes), "n_elements": len(elements),
        "max_distance": max_distance, "min_score": min_score, "gamma": gamma, "scale": scale,
        "contacts": None if contacts is None else {"source": contacts.source, "resolution": contacts.resolution,
                                                   "balanced": "in the file" if contacts.balanced else "here"},
    }
    return links


def select_links(links: pd.DataFrame, threshold: float, *, score: str = "abc_reported", only_expressed: bool = True,
                 promoters: Literal["own", "all", "none"] = "own") -> pd.DataFrame:
    """Links that count as called: score at or above the threshold, genes expressed, no other gene's promoter.

    Parameters
    ----------
    promoters
        Which elements of class promoter stay: ``own`` those of the gene itself (as published), ``all``, ``none``.
    """
    if not {score, "class", "is_self_promoter", "is_expressed"} <= set(links.columns):
        raise SchemaError(f"links to select from need the columns {score}, class, is_self_promoter, is_expressed; got "
                          f"{', '.join(map(str, links.columns))}")
    keep = (links[score] >= threshold).to_numpy()
    if only_expressed:
        keep &= links["is_expressed"].to_numpy(bool)
    promoter = (links["class"] == "promoter").to_numpy()
    if promoters != "all":
        keep &= ~promoter | ((promoters == "own") & links["is_self_promoter"].to_numpy(bool))
    return links.loc[keep].reset_index(drop=True)


def _pairs(elements: pd.DataFrame, genes: pd.DataFrame, reach: int) -> tuple[ndarray, ndarray]:
    """Element and gene of every pair within reach, by place, genes in order; middles need not be sorted by start."""
    middle = ((elements["start"] + elements["end"]) / 2).to_numpy()
    order = np.argsort(middle, kind="stable")
    tss = genes["tss"].to_numpy()
    first = np.searchsorted(middle[order], tss - reach, side="left")
    last = np.searchsorted(middle[order], tss + reach, side="right")
    n = last - first
    gene = np.repeat(np.arange(len(tss)), n)
    within = np.arange(len(gene)) - np.repeat(np.cumsum(n) - n, n)
    return order[np.repeat(first, n) + within], gene


def _score_chromosome(elements: pd.DataFrame, genes: pd.DataFrame, pairs: tuple[ndarray, ndarray],
                      hic: sparse.csr_array | None, resolution: int, source: str, cell: str, min_score: float,
                      gamma: float, scale: float) -> dict[str, ndarray]:
    """Columns of the links of one chromosome, pairs below `min_score` left out."""
    element, gene = pairs
    start, end = (elements[c].to_numpy(np.int64) for c in ("start", "end"))
    tss = genes["tss"].to_numpy(np.int64)
    middle = (start + end) / 2
    distance = np.abs(middle[element] - tss[gene])
    own = (elements["class"] == "promoter").to_numpy()[element]
    own &= (start[element] < tss[gene] + PROMOTER_HALF) & (end[element] > tss[gene] - PROMOTER_HALF)
    c: PairContact = pair_contact(distance, hic=hic, bin_element=(middle // resolution).astype(np.int64)[element],
                                  bin_tss=(tss // resolution)[gene], gene=gene, is_self_promoter=own, source=source,
                                  gamma=gamma, scale=scale)
    power = elements["activity"].to_numpy(np.float64)[element]

    def share(numerator: ndarray) -> ndarray:
        total = np.bincount(gene, numerator, minlength=len(tss))[gene]
        return np.divide(numerator, total, out=np.zeros(len(total)), where=total > 0)

    numerator, plain = power * c.contact, power * c.powerlaw
    abc = share(numerator)
    reported = np.where(own, 1.0, abc)
    kept = np.flatnonzero(reported >= min_score)
    e, g = element[kept], gene[kept]
    columns = {
        "chrom": elements["chrom"].to_numpy()[e], "start": start[e], "end": end[e],
        "gene_id": genes["gene_id"].to_numpy()[g], "cell": np.full(len(e), cell, dtype=object),
        "distance": distance[kept], "score": abc[kept],
        "gene_name": genes["gene_name"].to_numpy()[g], "tss": tss[g], "class": elements["class"].to_numpy()[e],
        "activity": power[kept], "contact": c.contact[kept], "contact_source": c.source[kept],
        "powerlaw_contact": c.powerlaw[kept], "powerlaw_contact_reference": c.powerlaw_reference[kept],
        "hic_contact": c.hic[kept], "hic_contact_scaled": c.hic_scaled[kept], "hic_pseudocount": c.pseudocount[kept],
        "abc_numerator": numerator[kept], "abc": abc[kept], "abc_reported": reported[kept],
        "powerlaw_numerator": plain[kept], "powerlaw_abc": share(plain)[kept], "is_self_promoter": own[kept],
    }
    known: dict[str, ndarray] = {}
    for name in ("expression", "promoter_activity_quantile"):
        known[name] = genes[name].to_numpy(np.float64) if name in genes.columns else np.full(len(tss), np.nan)
        columns[name] = known[name][g]
    expressed = (known["expression"] > EXPRESSED) | (known["promoter_activity_quantile"] >= ACTIVE_PROMOTER)
    unknown = np.isnan(known["expression"]) & np.isnan(known["promoter_activity_quantile"])
    return columns | {"is_expressed": (expressed | unknown)[g]}


def _around(chrom: ndarray, middle: ndarray, half: int, chrom_sizes: dict[str, int] | None) -> pd.DataFrame:
    """Middle ± half, cut at the ends of the chromosome."""
    start, end = np.maximum(middle - half, 0), middle + half
    if chrom_sizes is not None:
        end = np.minimum(end, np.array([chrom_sizes.get(c, np.iinfo(np.int64).max) for c in chrom]))
    return pd.DataFrame({"chrom": chrom, "start": start, "end": end})


def _need_finite(values: ndarray, what: str, elements: pd.DataFrame) -> None:
    """Raise unless values are finite and not negative, naming the first element."""
    bad = ~(np.isfinite(values) & (values >= 0))
    if bad.any():
        i = int(bad.argmax())
        raise SchemaError(f"{int(bad.sum()):,} of {len(bad):,} elements have a {what} that is NaN, infinite or below "
                          f"0; first: row {i} {region_id(elements).iloc[i]} = {values[i]}; leave these elements out, "
                          "or give them 0 where no read was found")

