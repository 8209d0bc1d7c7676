"""The command line: one verb per function of the library.

Nothing heavy is imported before a verb runs, so that ``ciscribe --help`` answers at once.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from ciscribe import __version__
from ciscribe.errors import CiscribeError

app = App(name="ciscribe", version=__version__, suppress_keyboard_interrupt=False,  # `main` has a word to say
          help="Reads, explains and writes the cis-regulatory code.\n\n"
               "Start with `ciscribe demo`, then `ciscribe run configs/worm.yaml`.")
data_app = App(name="data", help="Build what a training reads.")
app.command(data_app)
models_app = App(name="models", help="The registered models: list, look at, load, share.")
app.command(models_app)
variants_app = App(name="variants", help="What variants do: score a file of them, or hold scores against measurements.")
app.command(variants_app)
links_app = App(name="links", help="Which element serves which gene: score links, or hold them against CRISPRi.")
app.command(links_app)
elements_app = App(name="elements", help="Call the elements of a run, or ask whether they are real.")
app.command(elements_app)
bench_app = App(name="bench", help="Compare methods on real data.")
app.command(bench_app)

Out = Annotated[Path | None, Parameter(help="Run folder; runs/<name> unless given.")]


def _workflow() -> Any:
    return import_module("ciscribe.workflow.run")  # torch and Lightning load here, not at start


def _explain() -> Any:
    return import_module("ciscribe.workflow.explain")


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _options(quiet: bool) -> dict[str, Any]:
    console = _console()
    if quiet:
        return {"tell": lambda line: None, "progress": False}
    return {"tell": lambda line: console.print(Text(line)), "progress": console.is_terminal}


def _finish(folder: Path) -> None:
    _console().print(f"\n[bold]report[/bold]: {(folder / 'report.html').resolve()}")


@app.command
def demo(*, out: Out = None, fast: bool = False, seed: int = 0, quiet: bool = False) -> None:
    """Run the whole job on a simulated genome whose truth is known: train, evaluate, call elements, report.

    Parameters
    ----------
    fast
        A smaller world and a shorter training: does everything run? Its figures mean little.
    seed
        Of the world and of the training.
    quiet
        Print the path of the report only.
    """
    folder = import_module("ciscribe.demo").run_demo(out or Path("runs/demo"), fast=fast, seed=seed, **_options(quiet))
    _finish(folder)


@app.command
def run(config: Path, *, out: Out = None, quiet: bool = False) -> None:
    """Do every step of a configuration that is not done yet, from data to report.

    Parameters
    ----------
    config
        YAML file; see configs/.
    quiet
        Print the path of the report only.
    """
    _finish(_workflow().Run.from_config(config, out, **_options(quiet)).run())


@data_app.command(name="build")
def data_build(config: Path, *, out: Out = None, again: bool = False, quiet: bool = False) -> None:
    """Read genome, signals, genes and expression of a configuration into a run folder.

    Parameters
    ----------
    config
        YAML file; see configs/.
    again
        Build anew even when it is up to date.
    """
    _workflow().Run.from_config(config, out, **_options(quiet)).run("data", again=again)


def _step(folder: Path, step: str, again: bool, quiet: bool) -> None:
    _workflow().Run(folder, **_options(quiet)).run(step, again=again)


@app.command
def train(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Train the model of a run folder, continuing from its last checkpoint.

    Parameters
    ----------
    run_dir
        Made by `ciscribe data build` or `ciscribe run`.
    again
        Train anew even when it is done (a finished training's checkpoints are removed).
    """
    _step(run_dir, "train", again, quiet)


@app.command
def predict(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Predict every gene of a run folder: predictions.parquet.

    Parameters
    ----------
    run_dir
        A run folder with a trained model, or one to be trained.
    again
        Predict anew even when it is done.
    """
    _step(run_dir, "predict", again, quiet)


@app.command
def evaluate(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Compare predictions and baselines with the held-out genes: metrics.json.

    Parameters
    ----------
    run_dir
        A run folder.
    again
        Evaluate anew even when it is done.
    """
    _step(run_dir, "evaluate", again, quiet)


@elements_app.default
def elements(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Call the regulatory elements of the held-out genes: elements.bed.

    Parameters
    ----------
    run_dir
        A run folder.
    again
        Call anew even when it is done.
    """
    _step(run_dir, "elements", again, quiet)


@elements_app.command(name="benchmark")
def elements_benchmark(run_dir: Path, *others: Path, sites: Path | None = None, promoters: Path | None = None,
                       enhancers: Path | None = None, names: Path | None = None, stage: str | None = None,
                       against: str | None = None, target: str | None = None, fold: str = "test", n: int | None = None,
                       erase: bool = True, out: Out = None, seed: int = 0, quiet: bool = False) -> None:
    """Ask whether the elements of a run are real: against what is known, through the model, and from run to run.

    Writes benchmark.tsv and report.html; what lacks its input is left out, and said so.

    Parameters
    ----------
    run_dir
        Folder of a trained run of genes; the figures of a simulated world need no further file.
    others
        Other runs with the same windows: seeds, folds, or less input.
    sites
        Accessible sites: BED, or a table that begins with chromosome, start, end; further numbers are heights.
    promoters
        Annotated promoters.
    enhancers
        Elements whose column 4 names their target genes (``Name=a,b``).
    names
        Table of gene_id and other names of genes, for those targets.
    stage
        Column of heights in `sites`: also find the sites that are open there and not in `against`.
    against
        Another column of heights.
    target
        Target of the model that goes with `stage`.
    fold
        train, valid, test or all.
    n
        Most genes; all unless given.
    erase
        Also score by erasing tiles, which takes most of the time; --no-erase is the mask alone.
    out
        Folder; <run>/elements_benchmark unless given.
    """
    module = import_module("ciscribe.workflow.element_benchmark")
    table, folder = module.benchmark_elements(
        run_dir, others, out, sites=sites, promoters=promoters, enhancers=enhancers, names=names, stage=stage,
        against=against, target=target, fold=fold, n=n, erase=erase, seed=seed, **_options(quiet))
    if len(table):
        _print_table(table[["truth", "method", "auprc_full", "prevalence", "fold", "precision"]])
    _finish(folder)


@app.command
def report(run_dir: Path, *, again: bool = False, quiet: bool = False) -> None:
    """Write the report of a run folder, of genes or of a reporter assay, with what explains it: report.html.

    Parameters
    ----------
    run_dir
        A run folder.
    again
        Write anew even when it is done.
    """
    _finish(import_module("ciscribe.workflow.subject").open_run(run_dir, **_options(quiet)).run("report", again=again))


@app.command
def compare(config: Path, *, out: Out = None, dry_run: bool = False, jobs: int = 1, folds: list[str] | None = None,
            quiet: bool = False) -> None:
    """Compare models on the same genes: every chromosome fold, several seeds, a paired test, curves, one report.

    Parameters
    ----------
    config
        YAML file; see configs/compare_worm.yaml.
    dry_run
        Print how long the fits that are left take and how much memory one needs, from a few timed steps; train nothing.
    jobs
        Fits at a time, each on one thread.
    folds
        Only these folds, e.g. ``--folds chrIV``; all unless given.
    quiet
        Print the table and the path of the report only.
    """
    module = import_module("ciscribe.workflow.compare")
    job = module.Compare.from_config(config, out, n_jobs=jobs, folds=tuple(folds or ()), **_options(quiet))
    if dry_run:
        job.prepare()
        table = job.estimate()
        _print_table(table)
        _console().print(f"{int(table['fits'].sum()):,} fits left, about {table['minutes'].sum():,.0f} minutes"
                         f" and at most {table['memory_gb'].max() * jobs:.1f} GB beside PyTorch itself")
        return
    _print_table(module.shown(job.run()))
    _finish(job.folder)


@app.command
def reporter(config: Path, *, out: Out = None, again: bool = False, quiet: bool = False) -> None:
    """Train, evaluate and report a model of a reporter assay: a table of sequences and their activities.

    Parameters
    ----------
    config
        YAML file; see configs/reporter.yaml.
    again
        Train anew even when it is done.
    quiet
        Print the path of the report only.
    """
    job = import_module("ciscribe.workflow.reporter").ReporterRun.from_config(config, out, **_options(quiet))
    if again:
        job.run("train", again=True)
    _finish(job.run())


@app.command
def explain(run_dir: Path, *, method: str = "auto", genes: list[str] | None = None, fold: str = "all",
            n: int | None = None, track: str | None = None, seed: int = 0, quiet: bool = False) -> None:
    """Show how much every base of a run's sequences matters to the prediction: explain/attributions.npz, report.html.

    Motifs and syntax that were found before are removed, since they would not fit the new attributions.

    Parameters
    ----------
    run_dir
        Folder of a trained run, of genes or of a reporter assay.
    method
        deeplift (DeepSHAP), integrated_gradients, expected_gradients, gradient, corrected_gradient, smooth_grad, ism;
        auto takes the first that supports the model.
    genes
        Only these genes or sequences, by id or name.
    fold
        train, valid, test or all.
    n
        Most sequences; 1,000 unless given (60 of windows of 5 kb or more).
    track
        Only this target; all unless given.
    seed
        Of references and of which sequences are taken.
    """
    _finish(_explain().explain(run_dir, method=method, genes=genes or (), fold=fold, n=n, track=track, seed=seed,
                               **_options(quiet)))


@app.command
def motifs(run_dir: Path, *, database: list[Path] | None = None, engine: Literal["modisco", "clusters"] | None = None,
           track: str | None = None, min_seqlets: int = 20, max_seqlets: int | None = None, seed: int = 0,
           quiet: bool = False) -> None:
    """Find the motifs that a run's model responds to, what they resemble, and where they stand.

    Parameters
    ----------
    run_dir
        Folder of a trained run; explained first where it is not yet.
    database
        MEME files of known motifs; those of the configuration unless given.
    engine
        modisco (TF-MoDISco; needs ``pip install 'ciscribe[motifs]'``) or clusters (ours, needs nothing).
    track
        Target that is explained; the first unless given.
    min_seqlets
        Fewest places of a motif.
    max_seqlets
        Most places that are clustered; 20,000 unless given (5,000 with clusters).
    """
    _finish(_explain().find_motifs(run_dir, database=database or (), engine=engine, track=track,
                                   min_seqlets=min_seqlets, max_seqlets=max_seqlets, seed=seed, **_options(quiet)))


@app.command
def syntax(run_dir: Path, *, words: list[str] | None = None, max_gap: int = 60, n_backgrounds: int | None = None,
           seed: int = 0, quiet: bool = False) -> None:
    """Find the rules between the motifs of a run: who works with whom, at which distance, and where.

    Parameters
    ----------
    run_dir
        Folder of a trained run whose motifs were found, or any with `words`.
    words
        Motifs as words, e.g. ``--words TTGACA --words TATAAT``; the commonest found motifs unless given.
    max_gap
        Largest distance between two motifs, in bp.
    n_backgrounds
        Shuffled sequences into which motifs are written; 50 unless given (10 of windows of 5 kb or more).
    """
    _finish(_explain().find_syntax(run_dir, words=words or (), max_gap=max_gap, n_backgrounds=n_backgrounds, seed=seed,
                                   **_options(quiet)))


@app.command
def modalities(run_dir: Path, *, genes: list[str] | None = None, fold: str = "test", n: int = 50,
               absent: Literal["average", "zeros"] = "average", each: bool = False, seed: int = 0, quiet: bool = False
               ) -> None:
    """Share the predictions of a run among sequence, signals and covariates: explain/modalities.parquet, report.html.

    Also erases the signal of called elements and keeps their DNA, and the reverse: explain/counterfactuals.parquet.

    Parameters
    ----------
    run_dir
        Folder of a trained run of genes.
    genes
        Only these genes, by id or name.
    fold
        train, valid, test or all.
    n
        Most genes of the fold.
    absent
        What absent signals become: the average training gene's, or zeros.
    each
        Every track is a group of its own; else all are one where there would be more than five groups.
    """
    module = import_module("ciscribe.workflow.modalities")
    _finish(module.split_modalities(run_dir, genes=genes or (), fold=fold, n=n, absent=absent, each=each, seed=seed,
                                    **_options(quiet)))


@variants_app.command(name="score")
def variants_score(variants: Path, *, run: Path | None = None, others: list[Path] | None = None,
                   genome: Path | None = None, motifs: list[Path] | None = None, scorers: list[str] | None = None,
                   links: Path | None = None, mismatch: Literal["error", "flip", "drop"] = "error",
                   one_based: bool | None = None, shuffles: int = 0, matched: int = 0, snap: int = 1, out: Out = None,
                   seed: int = 0, quiet: bool = False) -> None:
    """Say what each variant of a file does: to a trained model, to known motifs, or to both.

    Writes effects.parquet, the VCF with scores in its INFO, and report.html.

    Parameters
    ----------
    variants
        VCF (plain, gzip, bgzip) or a table with the columns chrom, pos, ref, alt.
    run
        Folder of a trained run, of genes or of a reporter assay.
    others
        Folders of runs of the same kind, such as other seeds: an ensemble, whose spread is given.
    genome
        FASTA of the reference; that of the run unless given.
    motifs
        MEME files of known motifs.
    scorers
        diff, logfc, abs_logfc, jsd, max_abs_sad, l2, ism; diff unless given.
    links
        Table of element–gene links: also the effect through the element that a variant lies in.
    mismatch
        What happens where the reference allele is not what the genome has.
    one_based
        Of a table that is no VCF: whether positions count from 1 (--one-based) or from 0 (--no-one-based).
    shuffles
        Shuffled contexts a variant, for p-values.
    matched
        Random variants of its kind for each, for percentiles.
    snap
        Windows on a grid of so many bp, which neighboring variants share: faster for dense files; of a reporter run.
    out
        Folder; <run>/variants/<file> unless given.
    """
    module = import_module("ciscribe.workflow.variants")
    _finish(module.score_file(variants, out, run=run, others=others or (), genome=genome, motifs=motifs or (),
                              scorers=scorers or ("diff",), links=links, mismatch=mismatch, one_based=one_based,
                              n_shuffles=shuffles, n_matched=matched, snap=snap, seed=seed, **_options(quiet)))


@variants_app.command(name="benchmark")
def variants_benchmark(*, saturation: Path | None = None, high: Path | None = None, low: Path | None = None,
                       motifs: list[Path] | None = None, runs: list[Path] | None = None,
                       out: Path = Path("runs/variants_benchmark"), seed: int = 0, quiet: bool = False) -> None:
    """Hold scores of variants against measured alleles: saturation mutagenesis, or pairs of which one is higher.

    Parameters
    ----------
    saturation
        Table of saturation mutagenesis (Chrom, Pos, Ref, Alt, Barcodes, Coefficient, pValue, Element).
    high
        FASTA of the higher allele of each pair, such as the more open one.
    low
        FASTA of the lower allele, in the same order.
    motifs
        MEME files of known motifs.
    runs
        Folders of trained runs of reporter assays.
    seed
        Of the bootstrap.
    """
    table, folder = import_module("ciscribe.workflow.variant_benchmark").compare_scores(
        out, saturation=saturation, high=high, low=low, motifs=motifs or (), runs=runs or (), seed=seed,
        **_options(quiet))
    shown = ["method", "value", "low", "high", *(["spearman"] if "spearman" in table else [])]  # over experiments
    _print_table(table[shown].rename(columns={"value": "AUROC" if saturation is None else "over loci",
                                              "spearman": "over experiments"}))
    _finish(folder)


@links_app.command(name="score")
def links_score(config: Path, *, out: Out = None, quiet: bool = False) -> None:
    """Score the links of elements and genes of a configuration: activity by contact, or a trained combiner.

    Parameters
    ----------
    config
        YAML file; see configs/links_chr22.yaml.
    """
    _finish(import_module("ciscribe.workflow.links").score_config(config, out, **_options(quiet)))


@links_app.command(name="benchmark")
def links_benchmark(pairs: Path, genes: Path, *, links: list[str] | None = None, cell: str | None = None,
                    match_on: Literal["gene_name", "gene_id"] = "gene_name", out: Path = Path("runs/links_benchmark"),
                    quiet: bool = False) -> None:
    """Hold links against CRISPRi experiments by the community's protocol, beside distance and the nearest gene.

    Parameters
    ----------
    pairs
        Tested pairs: an EPCrisprBenchmark file, or a table chrom, start, end, gene_id, label.
    genes
        Gene annotation with the TSS of each gene.
    links
        Tables of links as NAME=FILE: ours, of ABC, or of ENCODE-rE2G.
    cell
        Cell type of the pairs that the links are for.
    match_on
        What names a gene in all of them.
    """
    named = {text.split("=")[0] if "=" in text else Path(text).stem: text.split("=", 1)[-1] for text in links or ()}
    table, folder = import_module("ciscribe.workflow.links").compare_links(
        named, pairs, genes, out, cell=cell, match_on=match_on, tell=_options(quiet)["tell"])
    _print_table(table[["predictor", "auprc", "average_precision", "precision_at_recall"]])
    _finish(folder)


@app.command
def design(config: Path, *, out: Out = None, quiet: bool = False) -> None:
    """Design new sequences with the model of a reporter run: within rules and a budget, audited.

    Writes designs.fasta, designs.tsv and report.html.

    Parameters
    ----------
    config
        YAML file; see configs/design_ecoli.yaml.
    """
    _finish(import_module("ciscribe.workflow.design").design_config(config, out, **_options(quiet)))


@app.command
def alleles(fasta: Path, *, run: Path, goal: Literal["maximize", "minimize", "target"] = "maximize",
            value: float | None = None, tolerance: float = 0.0, track: str | None = None,
            tools: list[str] | None = None, offset: int | None = None, max_span: int | None = None,
            scope: tuple[int, int] | None = None, anchor: int | None = None, out: Out = None, quiet: bool = False
            ) -> None:
    """List every allele that one or two CRISPR guides can make of a promoter, and what each is predicted to do.

    Writes alleles.tsv and report.html, and prints the front: alleles that no other beats with as few guides.

    Parameters
    ----------
    fasta
        One locus or more, in the direction of the promoter, longer than what the model reads.
    run
        Folder of a trained run of a reporter assay.
    goal
        maximize, minimize, or target (a level).
    value
        The level of a target, in the units of the run.
    tolerance
        Half-width of the level.
    track
        Target of the run; the first unless given.
    tools
        Cas9, Cas12a, CBE (C to T), ABE (A to G); Cas9, CBE and ABE unless given.
    offset
        Where the model's sequence begins in each locus, from 0; in its middle unless given.
    max_span
        Longest deletion in bp; as long as the locus can fill up unless given.
    scope
        Start and end of the part of the locus that may change; the model's sequence unless given.
    anchor
        Position of the locus that stays in place, such as the TSS; the last that the model reads unless given.
    out
        Folder; <run>/alleles/<file> unless given.
    """
    table, folder = import_module("ciscribe.workflow.alleles").score_alleles(
        fasta, run, out, goal=goal, value=value, tolerance=tolerance, track=track,
        tools=tools or ("Cas9", "CBE", "ABE"), offset=offset, max_span=max_span, scope=scope, anchor=anchor,
        tell=_options(quiet)["tell"])
    front = table[table["front"]].sort_values(["locus", "score"], ascending=[True, False], kind="stable")
    _print_table(front[["locus", "allele", "tool", "guides", "n_guides", "deleted", "prediction", "gain"]].head(40))
    _finish(folder)


@bench_app.command(name="attribution")
def bench_attribution(run_dir: Path, *, methods: list[str] | None = None, others: list[Path] | None = None,
                      n: int | None = None, fold: str = "test", track: str | None = None, seed: int = 0,
                      quiet: bool = False) -> None:
    """Put attribution methods to the test: does the model bear them out, do they see its weights, do they repeat.

    Parameters
    ----------
    run_dir
        Folder of a trained run.
    methods
        Names as in `ciscribe explain`; five of them unless given. Those that do not support the model are left out.
    others
        Folders of runs of the same model, such as other seeds, to compare explanations with.
    n
        Sequences; 50 unless given (10 of windows of 5 kb or more).
    fold
        train, valid, test or all.
    track
        Only this target; all unless given.
    """
    table, out = _explain().compare_attributions(run_dir, methods=methods or (), others=others or (), n=n, fold=fold,
                                                 track=track, seed=seed, **_options(quiet))
    _print_table(table[["method", "track", "insertion", "deletion", "gap", "agreement", "seconds"]])
    _finish(out)


@bench_app.command(name="reporter")
def bench_reporter(config: Path, *, out: Out = None, jobs: int = 1, dry_run: bool = False, quiet: bool = False
                   ) -> None:
    """Cross-validate models on reporter assays, beside two baselines; goes on where it was stopped.

    Parameters
    ----------
    config
        YAML file; see configs/bench_reporter.yaml.
    jobs
        Fits at a time, each on one thread.
    dry_run
        Print how many fits are left and about how long they take, and stop.
    quiet
        Print the table only.
    """
    module = import_module("ciscribe.workflow.bench")
    options = _options(quiet)
    bench = module.Bench.from_config(config, out, n_jobs=jobs, tell=options["tell"])
    if dry_run:
        bench.prepare()
        table = bench.estimate()
        _print_table(table)
        _console().print(f"{int(table['fits'].sum()):,} fits, about {table['minutes'].sum():.0f} minutes on {jobs} "
                         f"thread{'s' if jobs > 1 else ''} (baselines, early stops and transfers not counted)")
        return
    _print_table(bench.run()[list(module.SHOWN)])
    _console().print(f"\ntables: {bench.folder.resolve()}")


@bench_app.command(name="design")
def bench_design(config: Path, *, methods: list[str] | None = None, seeds: int = 3, budgets: list[int] | None = None,
                 out: Out = None, quiet: bool = False) -> None:
    """Give designers the same number of model calls on your own run, and rank them by a judge; goes on where stopped.

    Parameters
    ----------
    config
        YAML file of a design with a judge; see configs/design_ecoli.yaml.
    methods
        Names of designers; all that the configuration has everything for unless given.
    seeds
        Of designers and of the draw of starts.
    budgets
        Model calls; 5,000 unless given.
    out
        Folder; runs/<name>_league unless given.
    """
    module = import_module("ciscribe.workflow.design_bench")
    table, folder = module.compare_designers(config, methods or (), seeds=seeds, budgets=budgets or (5_000,), out=out,
                                             **_options(quiet))
    _print_table(table[list(module.SHOWN)])
    _finish(folder)


def _print_table(frame: Any) -> None:
    table = import_module("rich.table").Table(*map(str, frame.columns))
    for row in frame.astype(object).itertuples(index=False):
        table.add_row(*("–" if str(v) in ("None", "nan", "<NA>") else
                        f"{v:,.3f}" if isinstance(v, float) else f"{v:,}" if isinstance(v, int) else str(v)
                        for v in row))
    Console().print(table)


@models_app.command(name="list")
def models_list(pattern: str = "*") -> None:
    """List the registered models.

    Parameters
    ----------
    pattern
        Shell pattern of names, e.g. ``"*bp*"``.
    """
    registry = import_module("ciscribe.models.registry")
    rows = [("name", "task", "input, bp", "parameters", "what it does")]
    for name in registry.names(pattern):
        card = registry.card(name)
        length, size = ("" if n is None else f"{n:,}" for n in (card.input_length, card.parameters))
        rows.append((name, card.task or "", length, size, card.summary))
    width = [max(len(row[i]) for row in rows) for i in range(4)]
    console = _console()
    for i, (name, task, length, size, summary) in enumerate(rows):
        line = f"{name:<{width[0]}}  {task:<{width[1]}}  {length:>{width[2]}}  {size:>{width[3]}}  "
        room = max(20, console.width - len(line)) if console.is_terminal else len(summary)
        text = summary if len(summary) <= room else summary[:room - 1] + "…"  # only the sentence gives way
        console.print(Text(line + text, style="bold" if i == 0 else ""))


@models_app.command(name="show")
def models_show(name: str) -> None:
    """Show the card of a model, its arguments and presets.

    Parameters
    ----------
    name
        Of a registered model.
    """
    registry = import_module("ciscribe.models.registry")
    console = _console()
    console.print(registry.card(name).to_markdown(), markup=False)
    console.print("Arguments:\n")
    for key, value in registry.arguments(name).items():
        console.print(f"- {key} = {value!r}", markup=False)
    for which, arguments in registry.presets(name).items():
        console.print(f"\nPreset {which}: " + (", ".join(f"{k}={v!r}" for k, v in arguments.items()) or "as published"),
                      markup=False)


@models_app.command(name="load")
def models_load(source: str) -> None:
    """Load a model and say what it is: a folder of ours, a published checkpoint, or hf://owner/name.

    Parameters
    ----------
    source
        Folder, or ``hf://owner/name[@revision]`` (needs ``pip install 'ciscribe[hub]'``).
    """
    model, facts = import_module("ciscribe.models.hub").load(source)
    console = _console()
    console.print(f"{type(model).__name__}: {sum(p.numel() for p in model.parameters()):,} parameters")
    for key, value in facts.items():
        console.print(f"- {key}: {value}", markup=False)


@models_app.command(name="export")
def models_export(folder: Path, out: Path, *, repo: str = "owner/name", licence: str = "mit") -> None:
    """Write a trained model as a folder that is ready for a model hub: weights, configuration, model card.

    The card tells what the model reached on the test fold of its run, when the folder lies in one.

    Parameters
    ----------
    folder
        A model folder, e.g. ``runs/NAME/model``.
    out
        Where to write.
    repo
        Name that it will have on the hub, for the card.
    licence
        Of the weights, as the hub spells it.
    """
    import_module("ciscribe.models.hub").export_folder(folder, out, repo=repo, licence=licence,
                                                       metrics=_test_scores(folder.parent / "metrics.json"))
    _console().print(f"written: {out.resolve()}")


def _test_scores(path: Path) -> dict[str, dict[str, float]] | None:
    """Scores of the model of a run on its test fold, target → metric → value."""
    if not path.is_file():
        return None
    metrics = import_module("json").loads(path.read_text())
    targets = metrics["models"][metrics["main"]]["per_target"]
    return {f"test fold, {target}": {name: score["value"] for name, score in scores.items()
                                     if score["value"] is not None} for target, scores in targets.items()}


@app.command
def catalog(*, kind: Literal["all", "model", "baseline", "elements", "benchmark", "attribution",
                                         "interpretation", "variants", "links", "designer"] = "all") -> None:
    """List every method with its source.

    Parameters
    ----------
    kind
        Only methods of this kind.
    """
    table = import_module("rich.table").Table("name", "kind", "what it does", "paper")
    for card in _workflow().catalog():
        if kind in ("all", card.kind):
            table.add_row(card.name, card.kind, card.summary, card.paper)
    Console().print(table)


def main() -> None:
    """Entry point: run a verb; an expected error is one message and exit status 1, Ctrl-C is 130."""
    try:
        app()
    except CiscribeError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text.assemble(("error", "bold red"), f": {error}"))
        sys.exit(1)
    except KeyboardInterrupt:
        Console(stderr=True).print("stopped; what was complete is kept, the same command continues")
        sys.exit(130)


if __name__ == "__main__":
    main()
