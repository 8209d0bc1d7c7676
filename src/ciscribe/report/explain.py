"""The report of an explanation: what a model looks at, as motifs, as rules, and whether that can be believed.

Sections take what `ciscribe.report.explain_files` reads, and are None where there is nothing to show.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from ciscribe.card import Card
from ciscribe.interpret.patterns import Pattern
from ciscribe.io.motifs import write_meme
from ciscribe.plot.gallery import best_matches, plot_patterns, q_text
from ciscribe.plot.importance import plot_mutagenesis, plot_tiles
from ciscribe.plot.logo import plot_contributions
from ciscribe.plot.style import check_columns, display_name
from ciscribe.report.build import build_report
from ciscribe.report.explain_files import Explanation, Maps, read_explanation
from ciscribe.report.explain_rules import filled, robustness_section, syntax_section, track_name
from ciscribe.report.markup import figure_html, number_text, table_html
from ciscribe.report.modalities import modalities_section
from ciscribe.report.sections import Section

_MOST_REGIONS, _MOST_MAPS, _MOST_PATTERNS = 6, 3, 20


def write_explain_report(
    folder: Path,
    *,
    title: str,
    subtitle: str = "",
    cards: Sequence[Card] = (),
    summary: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Write ``report.html`` into the folder of an explanation, from the files that are there.

    Parameters
    ----------
    folder
        ``<run>/explain``; its files are those of `ciscribe.report.explain_files`. ``provenance.json``, where there is
        one, is shown at the end.
    title, subtitle
        What was explained, and one line about the model and the sequences.
    cards
        Of the methods that were used.
    summary
        Tiles before those that are made here.
    """
    found = read_explanation(folder)
    provenance = folder / "provenance.json"
    build_report(folder / "report.html", title=title, subtitle=subtitle, summary=[*summary, *_tiles(found)],
                 sections=explain_sections(found), cards=cards,
                 provenance=json.loads(provenance.read_text()) if provenance.exists() else {})


def explain_sections(found: Explanation) -> list[Section | None]:
    """All sections of an explanation, in reading order; also for the report of the run itself."""
    tables = found.tables
    tracks = found.maps.tracks if found.maps is not None else []
    units = found.maps.units if found.maps is not None else ""
    return [
        modalities_section(tables["modalities"], tables["counterfactuals"]),
        attributions_section(found.maps),
        changes_section(found.ism, tables["tiles"], found.maps),
        patterns_section(found.patterns, tables["matches"]),
        hits_section(tables["hits"], None if found.maps is None else len(found.maps.regions)),
        syntax_section(tables["spacing"], tables["observed"], tables["interactions"], tables["position"],
                       found.surrogate, tables["surrogate"], tracks=tracks, units=units),
        robustness_section(tables["faithfulness"], tables["methods"], tables["consistency"],
                           tables["randomization"], tables["labels"], tracks=tracks),
    ]


def attributions_section(maps: Maps | None, *, most: int = _MOST_REGIONS) -> Section | None:
    """Logos of the sequences in which the model finds most, each for the track that it matters most to."""
    if maps is None or not maps.regions:
        return None
    contribution = maps.contributions()
    body = Markup("")
    for i, (row, track) in enumerate(_instructive(contribution, most), 1):
        body += _region_heading(maps, row, track, f"region-{i}")
        figure = plot_contributions(contribution[row, :, track], maps.codes[row], units=maps.units)
        body += figure_html(figure, f"contributions-{i}", None, f"Contributions of the bases of {maps.regions[row]}")
    method = f" by {display_name(maps.method)}" if maps.method else ""
    unit = f", in {maps.units}" if maps.units else ""
    n = len(maps.regions)
    shown = "all" if n <= most else f"those {most} of {n:,} with the largest contributions"
    return Section(
        "What the model looks at", "contributions",
        f"How much each base contributes to the prediction{method}{unit}: {shown}. Letters above the line raise the "
        "output, letters below it (upside down and paler) lower it.", body)


def changes_section(ism: Maps | None, tiles: pd.DataFrame | None, maps: Maps | None = None, *, most: int = _MOST_MAPS
                    ) -> Section | None:
    """What single substitutions and deletions of stretches do to the output."""
    body = Markup("")
    if ism is not None and ism.regions:
        centered = Maps(ism.values - ism.values.mean(axis=1, keepdims=True), ism.codes, ism.regions, ism.tracks)
        body += Markup("<h3>Every substitution</h3>")
        for i, (row, track) in enumerate(_instructive(centered.contributions(), most), 1):
            figure = plot_mutagenesis(ism.values[row, ..., track], ism.codes[row], units=ism.units,
                                      title=_named_track(ism.regions[row], ism.tracks, track))
            caption = ("Top: each base against the mean of the four. Below: the change of the output when a base is "
                       "replaced, blue for up and orange for down; squares mark the bases that are there."
                       if i == 1 else None)
            body += figure_html(figure, f"mutagenesis-{i}", caption, f"Effects of all substitutions in "
                                                                     f"{ism.regions[row]}")
    if tiles is not None and len(tiles):
        check_columns(tiles, ("region", "start", "end", "effect"), "tiles.parquet")
        body += Markup("<h3>Stretches destroyed in turn</h3>")
        keys = ["region", *(["track"] if "track" in tiles.columns else [])]
        order = np.argsort(-tiles["effect"].abs().to_numpy(float), kind="stable")
        best = tiles.iloc[order].drop_duplicates("region").head(most)  # of each sequence, its strongest track
        for i, key in enumerate(best.loc[:, keys].to_dict("records"), 1):
            part = tiles.loc[np.logical_and.reduce([tiles[k] == v for k, v in key.items()])]
            region = key["region"]
            name = maps.regions[int(region)] if maps is not None else f"sequence {region}"
            tracks = maps.tracks if maps is not None else []
            figure = plot_tiles(part, units=maps.units if maps is not None else "",
                                title=_named_track(name, tracks, key.get("track", 0))).get_figure(root=True)
            caption = ("Dashes are the windows, the filled steps the mean of the windows over each base: what the "
                       "output loses without them." if i == 1 else None)
            body += figure_html(figure, f"tiles-{i}", caption, f"Effect of deleted windows of {name}")
    if not body:
        return None
    return Section("What changes do", "changes", "The model is asked directly: the sequence is changed and predicted "
                   "again. No assumption about the model is made, so this is the yardstick of the other methods.", body)


def patterns_section(patterns: Sequence[Pattern] | None, matches: pd.DataFrame | None = None, *,
                     most: int = _MOST_PATTERNS) -> Section | None:
    """Gallery of the patterns with the known motifs that they are like, and all of them as a MEME file."""
    if patterns is None:
        return None
    lead = ("What the places that matter have in common. Left, mean contributions: which bases the model needs and how "
            "much. Right, base frequencies: what stands there. A q-value is the expected share of wrong matches.")
    if not patterns:
        return Section("Motifs", "patterns", lead, Markup('<p class="note">No pattern was found.</p>'))
    body = figure_html(plot_patterns(patterns, matches, most=most), "gallery", None,
                       "Patterns with their contributions, base frequencies and most similar known motifs")
    best = best_matches(matches)
    rows = []
    for pattern in patterns:
        match, q = best.get(pattern.name, ("–", np.nan))
        rows.append((pattern.name, match, q_text(q) if np.isfinite(q) else "–", f"{pattern.cwm.shape[1]}",
                     f"{len(pattern.seqlets):,}", f"{pattern.seqlets['region'].nunique():,}",
                     number_text(pattern.seqlets["contribution"].mean(), 3, sign=True)))
    header = ("Pattern", "Most similar motif", "q", "Width (bp)", "Seqlets", "Sequences", "Mean contribution")
    table = table_html(header, rows, left=2)
    body += Markup("<details><summary>Every pattern in numbers</summary>{}</details>").format(table)
    body += Markup('<p><a href="{}" download="patterns.meme">All {} patterns as a MEME file</a></p>').format(
        _data_link(_meme_text(patterns)), len(patterns))
    return Section("Motifs", "patterns", lead, body)


def hits_section(hits: pd.DataFrame | None, n_regions: int | None = None, *, most: int = 25) -> Section | None:
    """Count the instances of each motif.

    Parameters
    ----------
    hits
        ``region, strand, motif``; ``importance``, where there is one, is averaged.
    n_regions
        Number of sequences that were looked at; None if not known.
    most
        Rows of the table.
    """
    if hits is None:
        return None
    check_columns(hits, ("region", "strand", "motif"), "hits.parquet")
    lead = "Where each motif stands in the sequences and matters to the prediction there."
    if not len(hits):
        return Section("Motif instances", "hits", lead, Markup('<p class="note">No instance was called.</p>'))
    scored = "importance" in hits.columns
    groups = [(str(part["motif"].iloc[0]), part) for _, part in hits.groupby("motif", sort=False)]
    groups.sort(key=lambda group: -len(group[1]))
    rows = []
    for name, part in groups[:most]:
        inside = part["region"].nunique()
        rows.append((name, f"{len(part):,}", f"{inside:,}", *([f"{inside / n_regions:.0%}"] if n_regions else []),
                     f"{len(part) / inside:.2f}", f"{(part['strand'] == '+').mean():.0%}",
                     *([number_text(part["importance"].mean(), 3, sign=True)] if scored else [])))
    header = ("Motif", "Instances", "Sequences", *(["Share of sequences"] if n_regions else []), "Per sequence",
              "Forward strand", *(["Mean contribution"] if scored else []))
    body = Markup("<p>Instances: <b>{}</b>, of <b>{}</b> motifs, in <b>{}</b> sequences{}.</p>").format(
        f"{len(hits):,}", f"{len(groups):,}", f"{hits['region'].nunique():,}",
        f" of {n_regions:,}" if n_regions else "")
    body += table_html(header, rows)
    if len(groups) > most:
        body += Markup('<p class="note">{} rarer motifs are not listed.</p>').format(len(groups) - most)
    return Section("Motif instances", "hits", lead, body)


def _tiles(found: Explanation) -> list[tuple[str, str, str]]:
    tiles = []
    if found.maps is not None:
        tiles.append(("Sequences explained", f"{len(found.maps.regions):,}",
                      f"{len(found.maps.tracks)} track{'s' if len(found.maps.tracks) != 1 else ''}"
                      f"{f', {display_name(found.maps.method)}' if found.maps.method else ''}"))
    if filled(split := found.tables["modalities"]):
        size = split["shapley"].abs().groupby(split["group"], sort=False).mean()
        tiles.append(("Weighs most", str(size.idxmax()), f"mean size of its share {number_text(size.max(), 2)}"))
    if found.patterns is not None:
        best = best_matches(found.tables["matches"])
        sure = sum(best.get(p.name, ("", 1.0))[1] <= 0.05 for p in found.patterns)
        known = found.tables["matches"] is not None
        tiles.append(("Motifs", f"{len(found.patterns):,}", f"{sure} like a known motif, q ≤ 0.05" if known
                      else "patterns in the contributions"))
    if filled(hits := found.tables["hits"]):
        tiles.append(("Motif instances", f"{len(hits):,}", f"in {hits['region'].nunique():,} sequences"))
    if found.surrogate is not None:
        tiles.append(("Explained by a grammar", number_text(found.surrogate.get("r2")),
                      "R² of motifs and pairs against the model, held out"))
    return tiles


def _instructive(contribution: np.ndarray, most: int) -> list[tuple[int, int]]:
    """Regions and their tracks with the largest contributions, tracks brought to one scale."""
    total = np.abs(contribution).sum(axis=1)
    scaled = total / np.maximum(total.mean(axis=0), np.finfo(float).tiny)
    track = scaled.argmax(axis=1)
    order = np.argsort(-scaled.max(axis=1), kind="stable")[:most]
    return [(int(row), int(track[row])) for row in order]


def _region_heading(maps: Maps, row: int, track: int, anchor: str) -> Markup:
    facts = [maps.tracks[track]] if len(maps.tracks) > 1 else []
    for word, values in (("predicted", maps.predicted), ("measured", maps.observed)):
        if values is not None and np.isfinite(values[row, track]):
            facts.append(f"{word} {number_text(values[row, track], 2)}")
    return Markup('<h3 id="{}">{} <span class="aside">{}</span></h3>').format(
        anchor, maps.regions[row], " · ".join(facts))


def _named_track(region: str, tracks: Sequence[str], track: Any) -> str:
    return f"{region} · {track_name(track, tracks)}" if len(tracks) > 1 else region


def _meme_text(patterns: Sequence[Pattern]) -> str:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "patterns.meme"
        write_meme(path, [p.motif for p in patterns])
        return path.read_text()


def _data_link(text: str) -> str:
    return "data:text/plain;charset=utf-8;base64," + b64encode(text.encode()).decode()
