"""What predictions are made of, as a section: shares of the modalities, and what erasing signal or DNA does."""

import numpy as np
import pandas as pd
from markupsafe import Markup

from ciscribe.plot.elements import plot_shares
from ciscribe.plot.style import check_columns, display_name
from ciscribe.report.markup import figure_html, number_text, table_html
from ciscribe.report.sections import Section

_MOST_GENES, _MOST_PLACES = 12, 15


def modalities_section(split: pd.DataFrame | None, counterfactuals: pd.DataFrame | None = None) -> Section | None:
    """Shares of each group of inputs by target and by gene, and the counterfactuals of elements.

    Parameters
    ----------
    split
        `ciscribe.interpret.modalities.modality_shapley`, with ``units``.
    counterfactuals
        `ciscribe.interpret.modalities.erase_signal`, with ``place, units``.
    """
    if split is None or not len(split):
        return None
    check_columns(split, ("region", "target", "group", "shapley", "prediction", "baseline"), "modalities.parquet")
    units = str(split["units"].iloc[0]) if "units" in split else ""
    groups = list(dict.fromkeys(split["group"]))
    size = split.assign(size=split["shapley"].abs())
    mean = size.groupby(["target", "group"], sort=False)["size"].mean().reset_index()
    total = mean.groupby("target", sort=False)["size"].transform("sum").to_numpy(float)
    mean["share"] = np.divide(mean["size"].to_numpy(float), total, out=np.zeros(len(mean)), where=total > 0)
    body = Markup("<h3>By target</h3>")
    body += figure_html(plot_shares(mean, name="target", part="group", value="share", order=groups,
                                    xlabel="share of the mean size of all contributions"), "modalities-targets", None,
                        "Share of each modality in the predictions, by target")
    rows = [(target, *(number_text(own.set_index("group").loc[g, "size"], 3) for g in groups))
            for target, own in ((t, mean.loc[mean["target"] == t]) for t in dict.fromkeys(mean["target"]))]
    body += table_html((f"Mean size{f', {units}' if units else ''}", *map(display_name, groups)), rows)
    by_gene = split.groupby(["region", "group"], sort=False)["shapley"].mean().reset_index()
    away = split.assign(away=(split["prediction"] - split["baseline"]).abs())
    far = away.groupby("region", sort=False)[["away"]].mean().reset_index()
    shown = far["region"].to_numpy()[np.argsort(-far["away"].to_numpy(float), kind="stable")][:_MOST_GENES]
    part = pd.concat([by_gene.loc[by_gene["region"] == gene] for gene in shown])
    body += Markup("<h3>Genes that differ most from the average one</h3>")
    body += figure_html(plot_shares(part, name="region", part="group", value="shapley", order=groups, percent=False,
                                    xlabel=f"contribution{f' ({units})' if units else ''}, mean over targets"),
                        "modalities-genes", "To the right: raises the prediction over that of a gene without any of "
                        "them; the parts of a gene add up to the difference.", "Contribution of each modality, by gene")
    if (split["standard_error"] > 0).any():
        body += Markup("<p class=\"note\">Values are sampled; the largest standard error is {}.</p>").format(
            number_text(split["standard_error"].max()))
    if counterfactuals is not None and len(counterfactuals):
        body += _counterfactuals(counterfactuals, units)
    around = (" Surroundings are signals too: the coarse tracks around the window that the covariates hold."
              if "surroundings" in groups else "")
    return Section("What predictions are made of", "modalities",
                   "Shapley values of whole groups of inputs: each is replaced by what an average gene has (bases by "
                   f"shuffles), in all orders, and what that does to the prediction is shared out.{around}", body)


def _counterfactuals(table: pd.DataFrame, units: str) -> Markup:
    columns = ("prediction", "signal_effect", "dna_effect", "both_effect", "interaction")
    check_columns(table, ("place", "target", *columns), "counterfactuals.parquet")
    order = np.argsort(-table["both_effect"].abs().to_numpy(float), kind="stable")
    best = table.iloc[order].drop_duplicates("place").head(_MOST_PLACES)
    gene = "gene_id" if "gene_id" in best else "region"
    rows = [(r["place"], r[gene], r["target"], *(number_text(r[c], 3, sign=c != "prediction") for c in columns))
            for r in best.to_dict("records")]
    rows.append(("mean of all", "", "", *(number_text(table[c].to_numpy(float).mean(), 3, sign=c != "prediction")
                                           for c in columns)))
    text = Markup("<h3>Erase the signal and keep the DNA, and the reverse</h3><p class=\"note\">{}</p>").format(
        "What the prediction loses (before − after" + (f", {units}" if units else "") + "). An interaction below 0 "
        "says that either will do, above 0 that the model takes both to believe in an element.")
    return text + table_html(("Element", "Gene", "Target", "Prediction", "Signal erased", "DNA shuffled", "Both",
                              "Interaction"), rows, left=3)
