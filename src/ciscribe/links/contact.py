"""How often an element meets a promoter: from a contact map, or from the distance between them.

All values are on one scale: the share of its contacts that a 5-kb bin makes with another, as in a contact map whose
rows sum to 1.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import sparse

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.io.contacts import Contacts, look_up, row_sums

GAMMA, SCALE = 1.024238616787792, 5.9594510043736655
"""Power law of contact by distance in K562 Hi-C: exponent and log of contact at 1 bp."""
GAMMA_REFERENCE = 0.87
SCALE_REFERENCE = -4.80 + 11.63 * GAMMA_REFERENCE
"""Power law of the average Hi-C map, to which the contacts of a cell type are scaled."""
NEAREST = 5_000
"""Distance in bp below which contact no longer rises."""
WEAKEST_PROMOTER = 0.01
"""A gene whose promoter meets itself less than this lies where the map cannot be read."""

CARD = Card(
    name="contact",
    kind="links",
    summary="Says how often an element and a promoter meet, from a Hi-C map or from their distance alone.",
    paper="Fulco et al., Nature Genetics 2019, doi:10.1038/s41588-019-0538-0; Nasser et al., Nature 2021, "
          "doi:10.1038/s41586-021-03446-x",
    code="broadinstitute/ABC-Enhancer-Gene-Prediction@36e212e",
    differences=(
        "A map of counts is balanced here by iterative correction (Imakaev et al. 2012) per chromosome, where the "
        "published pipeline needs SCALE-normalized values in the file.",
    ),
)


class PairContact(NamedTuple):
    """Contact of element–gene pairs and what it is made of; float64 ``(n,)``, NaN for Hi-C columns without a map."""

    powerlaw: ndarray
    powerlaw_reference: ndarray
    hic: ndarray
    hic_scaled: ndarray
    pseudocount: ndarray
    contact: ndarray
    source: ndarray  # "hic", "average" or "powerlaw" of each pair


def power_law(distance: Float[ndarray, " n"], *, gamma: float = GAMMA, scale: float = SCALE) -> Float[ndarray, " n"]:
    """Contact that a distance in bp lets expect: ``exp(scale − gamma · ln(max(d, 5000) + 1))``.

    References
    ----------
    Fulco et al. 2019, doi:10.1038/s41588-019-0538-0.

    Examples
    --------
    >>> power_law(np.array([0.0, 6399.0])).round(6).tolist()
    [0.063014, 0.048946]
    """
    return np.exp(scale - gamma * np.log(np.maximum(distance, NEAREST) + 1))


def reference_power_law(distance: Float[ndarray, " n"]) -> Float[ndarray, " n"]:
    """Contact that a distance in bp lets expect in the average Hi-C map (exponent 0.87)."""
    return power_law(distance, gamma=GAMMA_REFERENCE, scale=SCALE_REFERENCE)


def balance(upper: sparse.csr_array, *, min_pairs: int = 10, tolerance: float = 1e-5,
            max_iterations: int = 1_000) -> sparse.csr_array:
    """Correct a map of counts for how visible each bin is, so that every row sums to 1.

    Parameters
    ----------
    upper
        Upper triangle of counts ``(n_bins, n_bins)``; NaN counts as 0.
    min_pairs
        Bins with contacts to fewer bins than this cannot be corrected: their contacts become 0.
    tolerance
        Largest deviation of a row's sum from 1 at which the iteration ends.
    max_iterations
        At most this many rounds; a map of several unconnected parts may need them all.

    Returns
    -------
    csr_array
        Upper triangle, float64.

    References
    ----------
    Imakaev et al. 2012, Nature Methods, doi:10.1038/nmeth.2148 (iterative correction).
    """
    counts = sparse.csr_array((np.nan_to_num(upper.data.astype(np.float64)), upper.indices, upper.indptr),
                              shape=upper.shape)
    full = sparse.csr_array(counts + sparse.triu(counts, 1).T)
    full.eliminate_zeros()
    met = sparse.csr_array((np.ones(full.nnz), full.indices, full.indptr), shape=full.shape)
    kept = np.ones(len(full.indptr) - 1, dtype=bool)
    while True:  # bins that go take contacts of others with them
        partners = met @ kept.astype(np.float64)
        fewer = kept & (partners >= min_pairs)
        if (fewer == kept).all():
            break
        kept = fewer
    inner = full[kept][:, kept]
    weight = np.ones(int(kept.sum()))
    for _ in range(max_iterations):
        sums = weight * (inner @ weight)
        weight /= np.sqrt(sums)
        if np.abs(sums - 1).max(initial=0) < tolerance:
            break
    every = np.zeros(len(kept))
    every[kept] = weight
    out = sparse.csr_array(sparse.diags_array(every) @ counts @ sparse.diags_array(every))
    out.eliminate_zeros()
    return out


def contact_map(contacts: Contacts, chrom: str) -> sparse.csr_array:
    """Map of one chromosome as contact is used here: balanced, rows summing to 1, diagonal repaired, no NaN.

    Counts are balanced (`balance`); then all is divided by the mean sum of the rows that hold anything. Fragments that
    were cut and joined to themselves make the diagonal unreadable: each diagonal bin becomes the larger of its two
    neighbours in the row.

    Returns
    -------
    csr_array
        Upper triangle ``(n_bins, n_bins)``, float64.
    """
    upper = contacts.matrix(chrom)
    upper = balance(upper) if not contacts.balanced else sparse.csr_array(
        (np.nan_to_num(upper.data.astype(np.float64)), upper.indices, upper.indptr), shape=upper.shape)
    sums = row_sums(upper)
    if not sums.any():
        raise SchemaError(f"contacts of {chrom} in {contacts.source} are all 0"
                          + ("" if contacts.balanced else " or too few to be balanced") + "; use the power law")
    upper = sparse.csr_array(upper / sums[sums > 0].mean())
    right = np.append(upper.diagonal(1), 0.0)
    beside = np.maximum(right, np.append(0.0, right[:-1]))
    out = sparse.csr_array(sparse.triu(upper, 1) + sparse.diags_array(beside))
    out.sort_indices()
    return out


def pair_contact(distance: Float[ndarray, " n"], *, hic: sparse.csr_array | None = None,
                 bin_element: Int[ndarray, " n"] | None = None, bin_tss: Int[ndarray, " n"] | None = None,
                 gene: Int[ndarray, " n"] | None = None, is_self_promoter: Bool[ndarray, " n"] | None = None,
                 source: str = "hic", gamma: float = GAMMA, scale: float = SCALE) -> PairContact:
    """Contact of each element–gene pair of one chromosome.

    Without a map it is the power law C(d). With one it is the map's value, scaled by what the average map has more at
    that distance, plus a pseudocount: ``hic · C_ref(d) / C(d) + min(C(d), C(5 kb))``. Genes of which every own promoter
    has a contact below 0.01 lie in bins that cannot be read; they take the power law for ``hic``.

    Parameters
    ----------
    distance
        bp from the element's middle to the TSS.
    hic
        Map of the chromosome from `contact_map`; None for the power law.
    bin_element, bin_tss
        Bin of the element's middle and of the TSS.
    gene
        Number of the gene of each pair, from 0.
    is_self_promoter
        Whether the element is a promoter of this gene.
    source
        What the map is, for the column `source`: ``hic`` of this cell type, or ``average`` of several.
    gamma, scale
        Power law of this cell type.

    References
    ----------
    Fulco et al. 2019, doi:10.1038/s41588-019-0538-0.
    """
    near = power_law(distance, gamma=gamma, scale=scale)
    reference = reference_power_law(distance)
    n = len(distance)
    if hic is None:
        none = np.full(n, np.nan)
        return PairContact(near, reference, none, none, none, near, np.full(n, "powerlaw", dtype=object))
    if bin_element is None or bin_tss is None or gene is None or is_self_promoter is None:
        raise SchemaError("a contact map needs bin_element, bin_tss, gene and is_self_promoter of each pair")
    value = look_up(hic, bin_element, bin_tss)
    promoter = np.full(int(gene.max(initial=-1)) + 1, -np.inf)
    np.maximum.at(promoter, gene[is_self_promoter], value[is_self_promoter])
    unread = ((promoter >= 0) & (promoter < WEAKEST_PROMOTER))[gene]  # −inf: no own promoter among the elements
    value = np.where(unread, near, value)
    scaled = value * reference / near
    pseudocount = np.minimum(near, power_law(np.array([float(NEAREST)]), gamma=gamma, scale=scale))
    names = np.where(unread, "powerlaw", source).astype(object)
    return PairContact(near, reference, value, scaled, pseudocount, scaled + pseudocount, names)


def fit_power_law(contacts: Contacts, chroms: tuple[str, ...] | None = None, *, min_distance: int = 10_000,
                  max_distance: int = 1_000_000) -> tuple[float, float]:
    """Exponent and scale of the power law of a map: ``log contact = scale − gamma · log(d + 1)``.

    Fits a line to the logarithm of the mean contact at each distance from `min_distance` to `max_distance` bp, over
    `chroms` (None: all); bins that hold nothing are left out of the means.

    Returns
    -------
    gamma, scale
        To be given to `power_law` and `score_abc`.

    Raises
    ------
    SchemaError
        If fewer than three distances have any contact.
    """
    first, last = -(-min_distance // contacts.resolution), max_distance // contacts.resolution
    total, pairs = np.zeros(last + 1), np.zeros(last + 1)
    for chrom in chroms or contacts.chroms:
        upper = contact_map(contacts, chrom)
        read = row_sums(upper) > 0
        for offset in range(first, min(last, len(read) - 1) + 1):
            total[offset] += upper.diagonal(offset).sum()
            pairs[offset] += (read[offset:] & read[:len(read) - offset]).sum()
    offset = np.flatnonzero(total > 0)
    if len(offset) < 3:
        raise SchemaError(f"a power law needs contacts at three distances or more from {min_distance:,} to "
                          f"{max_distance:,} bp; {contacts.source} at {contacts.resolution:,} bp has {len(offset)}")
    slope, scale = np.polyfit(np.log(offset * contacts.resolution + 1.0), np.log(total[offset] / pairs[offset]), 1)
    return float(-slope), float(scale)
