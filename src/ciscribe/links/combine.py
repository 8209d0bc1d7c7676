"""Many weak hints about a link, weighed together: a classifier trained on links that were tested.

What is known of an element and a gene becomes named features (`link_features`): how far, how active, what lies
between, who competes. A `Combiner` turns them into the probability that silencing the element lowers the gene. It is
judged on chromosomes that it has not seen (`cross_predict`), and everything that is chosen from data (penalty,
calibration) is chosen inside of the training chromosomes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import lightgbm as lgb
import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped
from numpy import ndarray
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ciscribe.card import Card
from ciscribe.errors import CheckpointError, SchemaError, UnknownNameError, nearest
from ciscribe.intervals import region_id
from ciscribe.links.crispri import count_between, need_columns
from ciscribe.schema import check_intervals

CARD = Card(
    name="combiner",
    kind="links",
    summary="Weighs distance, activity, contact and what lies around an element and a gene into the probability that "
            "the element enhances the gene, as learnt from CRISPRi screens.",
    paper="Gschwind et al., bioRxiv 2023, doi:10.1101/2023.11.09.563812 (ENCODE-rE2G)",
    code="written from the description of EngreitzLab/ENCODE_rE2G@8b6e49d",
    differences=(
        "Features are computed from the tested elements and a gene list alone: no Hi-C, no candidate calling.",
        "Features about competition are ours: the share of the gene among all promoters that the element contacts, "
        "and the share and rank of the element among those around the gene.",
        "The logistic regression is penalized (L2), and the penalty chosen by the training chromosomes.",
        "Gradient boosting with directions that biology dictates, alone or averaged with the logistic regression.",
        "Probabilities are calibrated on held-out training chromosomes.",
    ),
)

MODELS = ("logistic", "boosting", "both")
CALIBRATORS = ("platt", "isotonic", "none")
_FORMAT = 1
_OFFSET = 0.01  # log(|x| + 0.01), ENCODE-rE2G's transform: counts of 0 stay apart from 1
_INNER_FOLDS = 5
_ROUNDS = 300
_BOOSTING = {"objective": "binary", "learning_rate": 0.03, "num_leaves": 7, "min_data_in_leaf": 40,
             "feature_fraction": 0.5, "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 5.0, "verbose": -1,
             "num_threads": 1, "deterministic": True, "force_row_wise": True}


@dataclass(frozen=True)
class Feature:
    """What a number about a pair means.

    Parameters
    ----------
    meaning, unit
        For people.
    direction
        +1 if more of it can only speak for a link, −1 against it, 0 if it may do either; boosting keeps to it.
    context
        Whether it looks at other elements or genes than the two of the pair.
    """

    meaning: str
    unit: str
    direction: int = 0
    context: bool = False


FEATURES: dict[str, Feature] = {
    "distance": Feature("from the element's middle to the TSS", "bp", -1),
    "n_tss_between": Feature("TSSs between the element and the TSS", "genes", -1),
    "accessibility": Feature("DNase-seq or ATAC-seq of the element", "RPM", 1),
    "activity": Feature("√(accessibility × H3K27ac around the element)", "RPM", 1),
    "accessibility_contact": Feature("accessibility × contact of element and TSS", "RPM", 1),
    "activity_contact": Feature("activity × contact: the numerator of ABC", "RPM", 1),
    "ubiquitous": Feature("the gene is expressed in every tissue", "0 or 1"),
    "h3k27ac": Feature("H3K27ac of the element itself", "RPM", 1),
    "ctcf": Feature("CTCF of the element", "RPM"),
    "h3k27me3": Feature("H3K27me3 (repression) of the element", "RPM", -1),
    "h3k4me1": Feature("H3K4me1 of the element", "RPM", 1),
    "width": Feature("length of the element", "bp"),
    "n_elements_between": Feature("elements between the element and the TSS", "elements", 0, True),
    "activity_between": Feature("summed activity of the elements between", "RPM", 0, True),
    "ctcf_between": Feature("summed CTCF of the elements between", "RPM", 0, True),
    "activity_5kb": Feature("summed activity of elements within 5 kb of the element, itself included", "RPM", 0, True),
    "activity_50kb": Feature("the same within 50 kb", "RPM", 0, True),
    "activity_total": Feature("Σ activity × contact over the elements within 5 Mb of the TSS", "RPM", 0, True),
    "activity_share": Feature("share of the element in that sum: ABC over the elements given", "0–1", 0, True),
    "activity_rank": Feature("elements around the gene with more activity × contact", "elements", 0, True),
    "closer_tss": Feature("TSSs nearer to the element than the gene's", "genes", 0, True),
    "nearest_tss": Feature("from the element's middle to any TSS", "bp", 0, True),
    "tss_100kb": Feature("TSSs within 100 kb of the gene's TSS", "genes", 0, True),
    "contact_share": Feature("contact with the gene's TSS, as a share of that with all (expressed) TSSs of the "
                             "chromosome", "0–1", 0, True),
    "n_expressed_tss_between": Feature("TSSs of expressed genes between", "genes", -1, True),
    "closer_expressed_tss": Feature("TSSs of expressed genes nearer to the element", "genes", 0, True),
    "nearest_expressed_tss": Feature("from the element's middle to any TSS of an expressed gene", "bp", 0, True),
    "expressed_tss_100kb": Feature("TSSs of expressed genes within 100 kb of the gene's TSS", "genes", 0, True),
}
"""Every feature by name. Those of marks and of expression exist where their columns do."""

_OPTIONAL = ("ubiquitous", "h3k27ac", "ctcf", "h3k27me3", "h3k4me1")
_REACH = 5_000_000


@dataclass(frozen=True)
class Combiner:
    """A fitted combiner: numbers and text only, so that it can be saved, read and compared.

    Parameters
    ----------
    model
        ``logistic``, ``boosting``, or ``both`` (the mean of their log-odds).
    features
        Columns that it reads, in this order.
    mean, scale, weights, intercept, penalty
        Logistic regression on ``(log(|x| + 0.01) − mean) / scale``; `penalty` is the chosen inverse strength C of L2.
        Empty and None without one.
    boosters
        LightGBM models as text, one a seed. Empty without boosting.
    calibrator
        ``platt``, ``isotonic`` or ``none``.
    knots
        Two rows. Platt: ``((slope,), (offset,))`` of the log-odds; isotonic: log-odds and probability of its corners.
    trained_on
        Groups (chromosomes) of the training pairs, sorted.
    """

    model: str
    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    penalty: float | None
    boosters: tuple[str, ...]
    calibrator: str
    knots: tuple[tuple[float, ...], tuple[float, ...]]
    trained_on: tuple[str, ...]

    def to_json(self) -> str:
        """As text, every number exact."""
        return json.dumps({"format": _FORMAT, "card": CARD.name} | asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Combiner":
        """Back from `to_json`.

        Raises
        ------
        CheckpointError
            If the text is not a combiner of this format.
        """
        try:
            fields = json.loads(text)
            if fields.pop("card") != CARD.name or fields.pop("format") != _FORMAT:
                raise CheckpointError(f"this is not a combiner of format {_FORMAT}; fit it anew")
            for name in ("features", "mean", "scale", "weights", "boosters", "trained_on"):
                fields[name] = tuple(fields[name])
            return cls(**fields | {"knots": tuple(tuple(row) for row in fields["knots"])})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"this text cannot be read as a combiner ({error}); was the file cut off?") from error

    def table(self) -> pd.DataFrame:
        """Weights of the logistic part: ``feature, weight`` (log-odds a standard deviation of the log), ``meaning``."""
        return pd.DataFrame({"feature": self.features[:len(self.weights)], "weight": self.weights,
                             "meaning": [FEATURES[name].meaning if name in FEATURES else ""
                                         for name in self.features[:len(self.weights)]]})


def link_features(pairs: pd.DataFrame, genes: pd.DataFrame, *,
                  contact: Callable[[Float[ndarray, " n"]], Float[ndarray, " n"]],
                  elements: pd.DataFrame | None = None, match_on: str = "gene_id") -> pd.DataFrame:
    """What is known of each element and gene, as named numbers (`FEATURES`).

    Parameters
    ----------
    pairs
        Links with ``accessibility`` and ``activity`` of the element, ``distance``, and whichever of ``h3k27ac, ctcf,
        h3k27me3, h3k4me1, ubiquitous`` are known. No other column is read: neither the result of the experiment nor
        its power.
    genes
        ``chrom, tss`` and `match_on`, one row a gene; ``expressed`` (bool) adds the features of expressed genes.
    contact
        Distance in bp → contact, e.g. `ciscribe.links.contact.power_law`.
    elements
        Candidates with ``activity`` (and ``ctcf``): what lies between and around. None takes the distinct elements of
        the pairs; then give all pairs at once, also those that will be predicted: no label enters.

    Returns
    -------
    DataFrame
        Index of the pairs, one float column a feature, in the order of `FEATURES`.

    Raises
    ------
    SchemaError
        If a column is missing or a value NaN, or a pair's gene is not among the genes or repeats there.

    Notes
    -----
    Positions are middles of elements. "Between" leaves out both ends. Contact with a TSS is taken at its distance on
    the chromosome; of two elements with the same middle neither lies between.
    """
    check_intervals(pairs, name="pairs")
    wanted = ["distance", "accessibility", "activity", *(name for name in _OPTIONAL if name in pairs.columns)]
    given = _matrix(pairs, wanted, "pairs")
    elements = pairs.drop_duplicates(["chrom", "start", "end"]) if elements is None else elements
    check_intervals(elements, name="elements")
    with_ctcf = "ctcf" in elements.columns
    signal = _matrix(elements, ["activity", "ctcf"] if with_ctcf else ["activity"], "elements")
    own = _own_tss(pairs, genes, match_on)
    all_tss, kinds = genes["tss"].to_numpy(), {"": np.ones(len(genes), dtype=bool)}
    if "expressed" in genes.columns:
        kinds["expressed_"] = genes["expressed"].to_numpy(bool)
    out = dict(zip(wanted, given.T, strict=True))
    out["width"] = (pairs["end"] - pairs["start"]).to_numpy(float)
    near = contact(out["distance"])
    for name in ("accessibility", "activity"):
        out[f"{name}_contact"] = out[name] * near
    middle, middles = _middle(pairs), _middle(elements)
    gene_chrom, element_chrom = genes["chrom"].to_numpy(), elements["chrom"].to_numpy()
    new = [name for name, feature in FEATURES.items() if (feature.context or name == "n_tss_between")
           and ("expressed_" in kinds or "expressed" not in name) and (with_ctcf or name != "ctcf_between")]
    out |= {name: np.zeros(len(pairs)) for name in new}
    for chrom, row in pairs.groupby("chrom", sort=False).indices.items():
        inside = np.flatnonzero(element_chrom == chrom)
        inside = inside[np.argsort(middles[inside], kind="stable")]
        at, active = middles[inside], signal[inside, 0]
        m, tss = middle[row], own[row]
        # The share is taken over all genes, then, where it is known which are expressed, over those.
        for word, kind in kinds.items():
            found = _around_promoters(np.sort(all_tss[kind & (gene_chrom == chrom)]), m, tss, contact)
            for name, value in found.items():
                out[name.format(word)][row] = value
        for name, value in _around_elements(at, active, signal[inside, 1] if with_ctcf else None, m, tss).items():
            out[name][row] = value
        for gene in np.unique(tss):
            of_gene = tss == gene
            far = np.abs(at - gene)
            strength = np.where(far < _REACH, active * contact(far.astype(float)), 0.0)
            mine = out["activity"][row[of_gene]] * contact(np.abs(m[of_gene] - gene).astype(float))
            total = strength.sum()
            out["activity_total"][row[of_gene]] = total
            out["activity_share"][row[of_gene]] = mine / total if total > 0 else 0.0
            # a hair more, so that rounding does not rank an element behind itself
            out["activity_rank"][row[of_gene]] = (strength > mine[:, None] * (1 + 1e-6)).sum(axis=1)
    return pd.DataFrame({name: out[name] for name in FEATURES if name in out}, index=pairs.index)


def fit_combiner(pairs: pd.DataFrame, features: Sequence[str], *, label: str = "label", groups: str = "chrom",
                 model: str = "logistic", penalties: Sequence[float] = (0.01, 0.1, 1.0, 10.0),
                 calibrator: str = "platt", n_boosters: int = 3, seed: int = 0
                 ) -> Combiner:
    """Learn from tested pairs how much each feature says about a link.

    Groups are dealt into five folds with about as many positives each. On each fold the models that were fitted to
    the others are read; the penalty with the least log loss over all is chosen, and the calibrator is fitted to its
    held-out log-odds. Then everything is fitted to all pairs.

    Parameters
    ----------
    pairs
        With the features, the label and the groups as columns.
    features
        Columns to use; numbers, finite.
    label
        Column of 1 or True: silencing the element lowers the gene.
    groups
        Column that keeps together what is not independent.
    model
        ``logistic``, ``boosting`` or ``both``.
    penalties
        Inverse strengths C of the L2 penalty to choose from; ``inf`` is none. One of them alone is taken unasked.
    calibrator
        ``platt`` (a line on the log-odds) keeps the order of scores; ``isotonic`` (steps) makes ties.
    n_boosters
        LightGBM models with seeds of their own whose log-odds are averaged.
    seed
        Of the boosting.

    Returns
    -------
    Combiner

    Raises
    ------
    SchemaError
        If a column is missing or NaN, or a fold of the groups would leave no positive or no negative pair to learn
        from.
    UnknownNameError
        If `model` or `calibrator` is none of these.

    References
    ----------
    Gschwind et al. 2023 (see `CARD`); Platt, Advances in Large Margin Classifiers, 1999; Zadrozny & Elkan, KDD 2002,
    doi:10.1145/775047.775151 (isotonic); Ke et al., NeurIPS 2017 (LightGBM).
    """
    for name, options in ((model, MODELS), (calibrator, CALIBRATORS)):
        if name not in options:
            raise UnknownNameError(f"got '{name}'; {nearest(name, options)}")
    X, y, group = _training(pairs, features, label, groups)
    bare = Combiner(model, tuple(features), (), (), (), 0.0, None, (), "none", ((), ()),
                    tuple(sorted(set(group.tolist()))))
    one = len(penalties) == 1 or model == "boosting"
    chosen = penalties[0]
    if calibrator != "none" or not one:
        fold = _deal(y, group)
        held = {penalty: np.empty(len(y)) for penalty in (penalties if model != "boosting" else penalties[:1])}
        boosted = np.empty(len(y))
        for k in range(fold.max() + 1):
            out = fold == k
            _both_labels(y[~out], f"when the groups {', '.join(sorted(set(group[out])))} are held out")
            if model != "logistic":  # one seed is enough to calibrate by
                boosted[out] = _log_odds(_boost(bare, X[~out], y[~out], 1, seed), X[out], "boosting")
            if model != "boosting":
                for penalty, odds in held.items():
                    odds[out] = _log_odds(_regress(bare, X[~out], y[~out], penalty), X[out], "logistic")
        if model != "boosting":
            chosen = min(held, key=lambda penalty: float(np.logaddexp(0, np.where(y, -1, 1) * held[penalty]).mean()))
        odds = boosted if model == "boosting" else held[chosen]
        if model == "both":
            odds = (odds + boosted) / 2
        bare = _calibrate(bare, odds, y, calibrator)
    if model != "boosting":
        bare = _regress(bare, X, y, chosen)
    return bare if model == "logistic" else _boost(bare, X, y, n_boosters, seed)


def predict_combiner(combiner: Combiner, pairs: pd.DataFrame) -> Float[ndarray, " N"]:
    """Probability that each pair is a link, 0..1.

    Raises
    ------
    SchemaError
        If a feature of the combiner is missing or NaN.
    """
    odds = _log_odds(combiner, _matrix(pairs, combiner.features, "pairs"), combiner.model)
    first, second = (np.array(row) for row in combiner.knots)
    if combiner.calibrator == "isotonic":
        return np.interp(odds, first, second)
    return expit(odds if combiner.calibrator == "none" else first[0] * odds + second[0])


def cross_predict(pairs: pd.DataFrame, features: Sequence[str], *, label: str = "label", groups: str = "chrom",
                  model: str = "logistic", penalties: Sequence[float] = (0.01, 0.1, 1.0, 10.0),
                  calibrator: str = "platt", n_boosters: int = 3, seed: int = 0
                  ) -> tuple[Float[ndarray, " N"], dict[str, Combiner]]:
    """Predict every group (chromosome) by a combiner that was fitted to all others.

    Parameters
    ----------
    pairs, features, label, groups, model, penalties, calibrator, n_boosters, seed
        As in `fit_combiner`, which sees the other groups only.

    Returns
    -------
    probability : ndarray
        In the order of the pairs.
    combiners : dict
        Group → the combiner that predicted it.

    Raises
    ------
    SchemaError
        As `fit_combiner`, naming the group that is held out.
    """
    _, y, group = _training(pairs, features, label, groups)
    probability, combiners = np.empty(len(pairs)), {}
    for name in sorted(set(group.tolist())):
        out = group == name
        _both_labels(y[~out], f"when the group {name} is held out")
        combiners[name] = fit_combiner(pairs.loc[~out], features, label=label, groups=groups, model=model,
                                       penalties=penalties, calibrator=calibrator, n_boosters=n_boosters, seed=seed)
        probability[out] = predict_combiner(combiners[name], pairs.loc[out])
    return probability, combiners


def reliability(label: Shaped[ndarray, " N"], probability: Float[ndarray, " N"], n_bins: int = 10
                ) -> tuple[pd.DataFrame, dict[str, float]]:
    """Whether links that are called with 30 % are found in 30 % of the cases.

    Pairs are ranked by probability and cut into bins with as many positives expected in each (equal sums of
    probability), since nearly all pairs lie near 0.

    Returns
    -------
    table : DataFrame
        ``n, predicted`` (mean probability) ``, observed`` (share of positives) ``, low, high`` (95 %, Wilson).
    figures : dict
        ``ece``, the mean of ``|observed − predicted|`` over pairs; ``brier``, the mean squared error; ``brier_skill``,
        1 − Brier / that of the base rate.

    References
    ----------
    Wilson, J Am Stat Assoc 1927, 22:209; Brier, Mon Weather Rev 1950, 78:1.
    """
    y, p = np.asarray(label).astype(bool), np.asarray(probability, float)
    if len(y) != len(p) or not len(y) or not ((p >= 0) & (p <= 1)).all() or n_bins < 1:
        raise SchemaError(f"reliability needs as many labels as probabilities in 0..1, and a bin; got {len(y):,} and "
                          f"{len(p):,}, {n_bins} bins")
    order = np.argsort(p, kind="stable")
    mass = np.cumsum(p[order])
    bin_ = np.zeros(len(p), dtype=int)
    bin_[order] = np.minimum((mass - p[order] / 2) / max(mass[-1], 1e-300) * n_bins, n_bins - 1).astype(int)
    rows, z = [], 1.959963984540054
    for b in np.unique(bin_):
        n, share = int((bin_ == b).sum()), float(y[bin_ == b].mean())
        centre, half = share + z * z / (2 * n), z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        rows.append({"n": n, "predicted": float(p[bin_ == b].mean()), "observed": share,
                     "low": max(0.0, (centre - half) / (1 + z * z / n)),
                     "high": min(1.0, (centre + half) / (1 + z * z / n))})
    table = pd.DataFrame(rows)
    brier, base = float(np.mean((p - y) ** 2)), float(y.mean() * (1 - y.mean()))
    return table, {"ece": float(np.average((table["observed"] - table["predicted"]).abs(), weights=table["n"])),
                   "brier": brier, "brier_skill": 1 - brier / base if base > 0 else float("nan")}


def _around_promoters(positions: ndarray, middle: ndarray, tss: ndarray, contact: Callable) -> dict[str, ndarray]:
    """Counts of TSSs, and the share of the pair's; ``{}`` in a name stands for the kind of genes."""
    far = np.abs(middle - tss)
    first = np.searchsorted(positions, middle)
    sides = [np.abs(middle - positions[np.clip(first + side, 0, len(positions) - 1)]) if len(positions) else far
             for side in (-1, 0)]
    mine = contact(far.astype(float))
    apart = np.abs(middle[:, None] - positions[None]).astype(float)
    all_ = contact(apart.ravel()).reshape(apart.shape).sum(axis=1)
    # The pair's own gene may not be among the expressed: its contact counts in any case, once.
    absent = ~np.isin(tss, positions)
    return {
        "n_{}tss_between": count_between(positions, middle, tss),
        "closer_{}tss": np.searchsorted(positions, middle + far, "left")
        - np.searchsorted(positions, middle - far, "right"),
        "nearest_{}tss": np.minimum(*sides),
        "{}tss_100kb": np.searchsorted(positions, tss + 100_000, "right")
        - np.searchsorted(positions, tss - 100_000, "left"),
        "contact_share": mine / (all_ + mine * absent),
    }


def _around_elements(at: ndarray, active: ndarray, ctcf: ndarray | None, middle: ndarray, tss: ndarray
                     ) -> dict[str, ndarray]:
    """Elements between the two ends of the pair, and activity around its element."""
    low, high = np.minimum(middle, tss), np.maximum(middle, tss)
    first = np.searchsorted(at, low, "right")
    last = np.maximum(np.searchsorted(at, high, "left"), first)
    sums = np.append(0.0, np.cumsum(active))
    out = {"n_elements_between": last - first, "activity_between": sums[last] - sums[first]}
    if ctcf is not None:
        bound = np.append(0.0, np.cumsum(ctcf))
        out["ctcf_between"] = bound[last] - bound[first]
    for name, reach in (("activity_5kb", 5_000), ("activity_50kb", 50_000)):
        out[name] = sums[np.searchsorted(at, middle + reach, "right")] - sums[np.searchsorted(at, middle - reach)]
    return out


def _middle(table: pd.DataFrame) -> ndarray:
    return ((table["start"] + table["end"]) // 2).to_numpy()


def _own_tss(pairs: pd.DataFrame, genes: pd.DataFrame, match_on: str) -> ndarray:
    """TSS of each pair's gene."""
    need_columns(pairs, [match_on], "pairs")
    need_columns(genes, ["chrom", "tss", match_on], "genes")
    twice = genes[match_on].duplicated()
    if twice.any():
        raise SchemaError(f"{int(twice.sum()):,} of {len(genes):,} genes repeat a {match_on}; first: "
                          f"{genes.loc[twice, match_on].iloc[0]}; keep one TSS a gene, or match on gene_id")
    known = pd.Index(genes[match_on]).get_indexer(pd.Index(pairs[match_on]))
    if (known < 0).any():
        i = int((known < 0).argmax())
        raise SchemaError(f"{int((known < 0).sum()):,} of {len(pairs):,} pairs name a gene that the gene table lacks; "
                          f"first: {pairs[match_on].iloc[i]}; leave them out with select_pairs(…, genes=…)")
    return genes["tss"].to_numpy()[known]


def _matrix(table: pd.DataFrame, columns: Sequence[str], name: str) -> Float[ndarray, "N F"]:
    """Columns as numbers, if they are there and finite."""
    need_columns(table, columns, name)
    X = np.column_stack([table[column].to_numpy(dtype=float, na_value=np.nan) for column in columns])
    bad = ~np.isfinite(X)
    if bad.any():
        i, j = np.argwhere(bad)[0]
        raise SchemaError(f"{int(bad.any(axis=1).sum()):,} of {len(X):,} {name} have a NaN or infinite value; first: "
                          f"{columns[j]} of {region_id(table).iloc[i] if 'chrom' in table.columns else f'row {i}'}; "
                          "fill it or leave these rows out")
    return X


def _training(pairs: pd.DataFrame, features: Sequence[str], label: str, groups: str
              ) -> tuple[ndarray, ndarray, ndarray]:
    """Features, labels (bool) and groups, if something can be learnt from them."""
    need_columns(pairs, (label, groups), "pairs")
    if not len(features) or len(set(features)) < len(features):
        raise SchemaError(f"a combiner needs features, each once; got {', '.join(features) or 'none'}")
    X, y = _matrix(pairs, features, "pairs"), _matrix(pairs, [label], "pairs")[:, 0]
    if not np.isin(y, (0, 1)).all():
        raise SchemaError(f"labels are 0 or 1; {int((~np.isin(y, (0, 1))).sum()):,} of {len(y):,} are not")
    _both_labels(y, "among the training pairs")
    group = pairs[groups].to_numpy().astype(str)
    if len(set(group)) < 2:
        raise SchemaError(f"pairs must come from two groups ({groups}) or more to choose anything; got {group[0]} only")
    return X, y.astype(bool), group


def _both_labels(y: ndarray, where: str) -> None:
    if not y.any() or y.all():
        raise SchemaError(f"there must be positive and negative pairs to learn from; {where} there are "
                          f"{int(y.sum()):,} positives of {len(y):,}")


def _deal(y: ndarray, group: ndarray) -> ndarray:
    """Fold of each pair: groups with most positives first, each to the fold that has the fewest so far."""
    names, row = np.unique(group, return_inverse=True)
    positives, size = np.bincount(row, weights=y), np.bincount(row)
    fold, held = np.zeros(len(names), dtype=int), np.zeros((min(_INNER_FOLDS, len(names)), 2))
    for g in np.lexsort((-size, -positives)):
        fold[g] = np.lexsort((held[:, 1], held[:, 0]))[0]
        held[fold[g]] += positives[g], size[g]
    return fold[row]


def _regress(combiner: Combiner, X: ndarray, y: ndarray, penalty: float) -> Combiner:
    Z = np.log(np.abs(X) + _OFFSET)
    mean, scale = Z.mean(axis=0), Z.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    fitted = LogisticRegression(C=penalty, max_iter=5_000).fit((Z - mean) / scale, y)
    return replace(combiner, mean=tuple(mean.tolist()), scale=tuple(scale.tolist()), penalty=float(penalty),
                   weights=tuple(fitted.coef_[0].tolist()), intercept=float(fitted.intercept_[0]))


def _boost(combiner: Combiner, X: ndarray, y: ndarray, n_boosters: int, seed: int) -> Combiner:
    directions = [FEATURES[name].direction if name in FEATURES else 0 for name in combiner.features]
    models = []
    for i in range(n_boosters):
        settings = _BOOSTING | {"seed": seed + i, "monotone_constraints": directions}
        models.append(lgb.train(settings, lgb.Dataset(X, y.astype(float), params={"verbose": -1}), _ROUNDS))
    return replace(combiner, boosters=tuple(booster.model_to_string() for booster in models))


def _log_odds(combiner: Combiner, X: ndarray, model: str) -> ndarray:
    """Before calibration; ``both`` is the mean of the two."""
    parts = []
    if model != "boosting":
        Z = (np.log(np.abs(X) + _OFFSET) - np.array(combiner.mean)) / np.array(combiner.scale)
        parts.append(Z @ np.array(combiner.weights) + combiner.intercept)
    if model != "logistic":
        parts.append(np.mean([np.asarray(lgb.Booster(model_str=text).predict(X, raw_score=True, num_threads=1))
                              for text in combiner.boosters], axis=0))
    return np.mean(parts, axis=0)


def _calibrate(combiner: Combiner, odds: ndarray, y: ndarray, calibrator: str) -> Combiner:
    if calibrator == "isotonic":
        steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(odds, y.astype(float))
        return replace(combiner, calibrator="isotonic", knots=(tuple(steps.X_thresholds_.tolist()),
                                                              tuple(steps.y_thresholds_.tolist())))
    if calibrator == "platt":
        line = LogisticRegression(C=np.inf, max_iter=1_000).fit(odds[:, None], y)
        # a line that falls would turn the order round: what was held out said nothing, so say the base rate
        slope = max(float(line.coef_[0, 0]), 0.0)
        offset = float(line.intercept_[0]) if slope else float(logit(y.mean()))
        return replace(combiner, calibrator="platt", knots=((slope,), (offset,)))
    return combiner
