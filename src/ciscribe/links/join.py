"""What the house knows about a link: element → gene, motifs in the element, variants in it and their effects."""

import numpy as np
import pandas as pd

from ciscribe.intervals import overlapping
from ciscribe.schema import check_effects, check_intervals, check_links

_MOST_MOTIFS = 5


def describe_links(links: pd.DataFrame, *, hits: pd.DataFrame | None = None, effects: pd.DataFrame | None = None,
                   score: str = "diff") -> pd.DataFrame:
    """Join links with the motif hits and the scored variants that lie in their elements.

    Parameters
    ----------
    links
        Links table.
    hits
        Intervals on the genome with ``motif, score``: what binds where.
    effects
        Effects of variants. Those scored for a gene (`gene_id` other than ``.``) count for the links of that gene
        only, and those of another track than the link's `cell` where some track is called like the cell do not count.
    score
        Column of `effects` by which the strongest variant is chosen (largest absolute value).

    Returns
    -------
    DataFrame
        The links, with ``n_hits, motifs`` (names of the best hits, one a motif) and ``n_variants, top_variant``
        (``chrom:pos ref>alt``, 0-based) ``, top_effect``; columns of what was not given are left out.
    """
    check_links(links)
    out = links.copy()
    if hits is not None:
        check_intervals(hits, name="hits")
        row, hit = overlapping(links, hits)
        found = pd.DataFrame({"row": row, "motif": hits["motif"].to_numpy()[hit],
                              "score": hits["score"].to_numpy(float)[hit]})
        best = found.sort_values("score", ascending=False, kind="stable").drop_duplicates(["row", "motif"])
        names = best.groupby("row")["motif"].agg(lambda motifs: ", ".join(motifs.head(_MOST_MOTIFS)))
        out["n_hits"] = np.bincount(row, minlength=len(links))
        out["motifs"] = names.reindex(range(len(links)), fill_value="").to_numpy()
    if effects is not None:
        check_effects(effects)
        places = pd.DataFrame({"chrom": effects["chrom"], "start": effects["pos"],
                               "end": effects["pos"] + effects["ref"].str.len()})
        row, variant = overlapping(links, places)
        gene, track = (effects[name].astype(str).to_numpy()[variant] for name in ("gene_id", "track"))
        own = (gene == ".") | (gene == links["gene_id"].astype(str).to_numpy()[row])
        cell = links["cell"].astype(str).to_numpy()[row]
        own &= (track == cell) | ~np.isin(cell, np.unique(effects["track"].to_numpy(str)))
        row, variant = row[own], variant[own]
        name = (effects["chrom"].astype(str) + ":" + effects["pos"].astype(str) + " " + effects["ref"] + ">"
                + effects["alt"]).to_numpy(str)
        found = pd.DataFrame({"row": row, "name": name[variant], "effect": effects[score].to_numpy(float)[variant]})
        found = found.loc[found["effect"].notna()]
        out["n_variants"] = found.groupby("row")["name"].nunique().reindex(range(len(links)), fill_value=0).to_numpy()
        found = found.loc[found["effect"].abs().sort_values(ascending=False, kind="stable").index]
        top = found.drop_duplicates("row").set_index("row").reindex(range(len(links)))
        out["top_variant"], out["top_effect"] = top["name"].fillna("").to_numpy(), top["effect"].to_numpy()
    return out
