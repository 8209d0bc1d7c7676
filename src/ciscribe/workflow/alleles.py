"""Breeding by editing from a file: every allele that guides can make of some loci, scored by a trained run.

================== ====================================================================================================
alleles.tsv        one row an allele: locus, how to make it, prediction, score, gain, and whether it is on the front
report.html        score against guides and lost bp, the front of each locus; provenance.json
================== ====================================================================================================
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ciscribe.config import GoalConfig
from ciscribe.design.alleles import EnumerateAlleles, base_rates, enumerate_alleles
from ciscribe.errors import CiscribeError, ConfigError
from ciscribe.io.genome import Genome
from ciscribe.provenance import atomic_folder, checksum, provenance, write_json
from ciscribe.report.design import write_alleles_report
from ciscribe.workflow.design_setup import objective_of, open_trained

Tell = Callable[[str], None]


def score_alleles(fasta: str | Path, run: str | Path, out: str | Path | None = None, *,
                  goal: Literal["maximize", "minimize", "target"] = "maximize", value: float | None = None,
                  tolerance: float = 0.0, track: str | None = None,
                  tools: Sequence[str] = ("Cas9", "CBE", "ABE"), offset: int | None = None, max_span: int | None = None,
                  scope: tuple[int, int] | None = None, anchor: int | None = None, tell: Tell = print
                  ) -> tuple[pd.DataFrame, Path]:
    """List and score the alleles of the loci of a FASTA.

    Parameters
    ----------
    fasta
        Loci in the direction of the promoter: the model's sequence and the genome around it, from which it is filled
        up after a deletion.
    run
        Folder of a trained reporter run.
    out
        Folder; ``<run>/alleles/<file>`` unless given.
    goal, value, tolerance, track
        What is wanted, as in `ciscribe.config.GoalConfig`; nothing is clipped.
    offset
        Where the model's sequence begins in each locus, 0-based; its middle unless given.
    tools, max_span, scope, anchor
        See `ciscribe.design.alleles.enumerate_alleles`.

    Returns
    -------
    DataFrame, Path
        All alleles, and the folder.

    Raises
    ------
    ConfigError, SchemaError
        For a locus that is too short or holds N, and what `enumerate_alleles` refuses; both name the locus.
    """
    model = open_trained(Path(run))
    wanted = GoalConfig(kind=goal, value=value, tolerance=tolerance, track=track)
    objective = objective_of(wanted, [model], clip=False)
    loci, scored = Genome(fasta), {}
    for name, size in loci.chrom_sizes.items():
        if size < model.length:
            raise ConfigError(f"{fasta}: the model reads {model.length:,} bp, {name} has {size:,} bp; give loci with "
                              "some of the genome on both sides")
        try:
            found = enumerate_alleles(loci.codes(name), (size - model.length) // 2 if offset is None else offset,
                                      model.length, tools=tools, max_span=max_span, scope=scope, anchor=anchor)
        except CiscribeError as error:
            raise type(error)(f"{fasta}, {name}: {error}") from error
        scored[name] = found.score(objective)
        tell(f"{name}: {len(found) - 1:,} alleles, {int((scored[name]['gain'] > 0).sum()):,} better than the wild type")
    table = pd.concat([part.assign(locus=name) for name, part in scored.items()], ignore_index=True)
    table.insert(0, "locus", table.pop("locus"))
    folder = Path(out) if out is not None else Path(run) / "alleles" / Path(fasta).name.split(".")[0]
    facts: dict[str, Any] = {"run": model.name, "loci": [str(fasta), checksum(fasta)], "tools": list(tools),
                             "goal": wanted.model_dump(include={"kind", "value", "tolerance", "track"})}
    with atomic_folder(folder) as temporary:
        table.to_csv(temporary / "alleles.tsv", sep="\t", index=False, float_format="%.6g")
        write_json(temporary / "provenance.json", provenance(**facts))
        write_alleles_report(temporary / "report.html", scored, base_rates(table), title="Alleles by editing",
                             subtitle=f"{goal} {track or model.tracks[0]} by the model of {model.name}, "
                                      f"{Path(fasta).name}", value="prediction", cards=[EnumerateAlleles.card],
                             provenance=facts)
    return table, folder
