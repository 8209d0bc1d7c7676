"""The configuration of a run: one YAML file, checked before anything starts.

Paths are relative to ``root``, in which ``${NAME}`` and ``${NAME:default}`` take environment variables. Unknown
keys are errors that name the nearest known key.
"""

import os
import re
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ciscribe.errors import ConfigError, DataMissingError, nearest


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GenesConfig(_Part):
    """Gene annotation: GTF, GFF3, BED or a table; `columns` names those of a table without header, or maps ours."""

    path: str
    columns: dict[str, str] | list[str] | None = None


class ExpressionConfig(_Part):
    """Expression table; see `ciscribe.io.expression.read_expression`."""

    path: str
    gene_id: str = "gene_id"
    columns: dict[str, list[str]] | list[str] | None = None
    counts_length: str | None = None
    transform: Literal["none", "log10p1", "log2p1"] = "none"


class SitesConfig(_Part):
    """Table of sites with a height in each condition; `values` maps track names to columns."""

    path: str
    values: dict[str, str]
    chrom: str = "chrom"
    start: str = "start"
    end: str = "end"


class TrackConfig(_Part):
    """One signal file (bigWig or bedGraph) or one table of sites (several tracks)."""

    name: str | None = None
    bigwig: str | None = None
    bedgraph: str | None = None
    sites: SitesConfig | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "TrackConfig":
        if sum(x is not None for x in (self.bigwig, self.bedgraph, self.sites)) != 1:
            raise ValueError("a track has exactly one of bigwig, bedgraph, sites")
        return self


class GeneContactsConfig(_Part):
    """Contact of every base with the TSS, gene by gene, in HDF5; see `ciscribe.io.gene_contacts`."""

    path: str
    name: str = "hic"
    max_missing: float = Field(default=0.5, ge=0, le=1)


class FeaturesConfig(_Part):
    """A table of numbers that describe genes; see `ciscribe.io.genes.read_gene_features`."""

    path: str
    gene_id: str = "gene_id"
    columns: list[str] = []
    geometric_mean: dict[str, list[str]] = {}


class DataConfig(_Part):
    """Where the inputs are."""

    root: str = "."
    genome: str
    genes: GenesConfig
    expression: ExpressionConfig
    tracks: list[TrackConfig] = []
    blacklist: str | None = None
    annotation: str | None = None
    """BED of known elements, shown beside the calls."""
    truth: str | None = None
    """Folder of a simulated world, for the noise ceiling and the element benchmark."""
    covariates: list[str] = []
    gene_features: bool = False
    """Adds length and neighbors of each gene to the covariates; see `ciscribe.data.gene_features`."""
    features: list[FeaturesConfig] = []
    """Further covariates, from tables of their own."""
    contacts: GeneContactsConfig | None = None
    """A last track: log10(contact + 1) of every base with the TSS."""

    @property
    def covariate_names(self) -> list[str]:
        """Every covariate that a table holds, those of the gene table first."""
        return [*self.covariates, *(name for part in self.features for name in (*part.columns, *part.geometric_mean))]


class WindowConfig(_Part):
    """The window; see `ciscribe.data.windows.WindowSpec`."""

    half_width: int = Field(gt=0)
    resolution: int = 1
    strand_aware: bool = True
    transform: Literal["none", "log1p", "quantile"] = "log1p"
    contact: bool = False
    contact_d0: float = Field(default=5000.0, gt=0)
    contact_gamma: float = 1.0
    contact_scale: float = 100.0
    context_half_width: int = Field(default=0, ge=0)
    context_resolution: int = Field(default=1024, gt=0)


class FoldTableConfig(_Part):
    """A table that says of every gene which fold it is in; see `ciscribe.io.genes.read_folds`."""

    path: str
    column: str
    gene_id: str = "gene_id"


class SplitConfig(_Part):
    """Held-out chromosomes or regions, or a table; `guard` bp must lie between windows of different folds."""

    valid: list[str] | None = Field(default=None, min_length=1)
    test: list[str] | None = Field(default=None, min_length=1)
    train: list[str] | None = None
    folds: FoldTableConfig | None = None
    guard: int = 0

    @model_validator(mode="after")
    def _one_way(self) -> "SplitConfig":
        if self.folds is None and (self.valid is None or self.test is None):
            raise ValueError("name the chromosomes of valid and test, or a table of folds")
        if self.folds is not None and (self.valid or self.test or self.train):
            raise ValueError("folds says which genes are train, valid and test; leave out the lists of chromosomes")
        return self


class ModelConfig(_Part):
    """A registered model and its arguments; counts of signals, targets and covariates come from the data."""

    name: str = "beacon"
    preset: str | None = None
    arguments: dict[str, Any] = {}


class LossConfig(_Part):
    """Weights of the loss; see `ciscribe.train.losses.LossSpec`."""

    kind: Literal["smooth_l1", "mse"] = "smooth_l1"
    contrast: float = Field(default=0.0, ge=0)
    mask_kl: float = Field(default=0.01, ge=0)
    expression_do: float = Field(default=1.0, ge=0)
    diversity: float = Field(default=0.1, ge=0)
    signal_error: float = Field(default=1.0, ge=0)


class TrainConfig(_Part):
    """The training plan; see `ciscribe.train.fit.FitSpec`."""

    epochs: int = Field(default=10, ge=1)
    steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    final_learning_rate: float | None = None
    weight_decay: float = Field(default=1e-6, ge=0)
    warmup: float = Field(default=0.1, ge=0, le=1)
    gradient_clip: float = Field(default=1.0, gt=0)
    average: float = Field(default=0.0, ge=0, lt=1)
    patience: int | None = None
    max_shift: int = Field(default=0, ge=0)
    reverse_complement: bool = False
    loss: LossConfig = LossConfig()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str | None = None
    n_devices: int = Field(default=1, ge=1)
    n_workers: int = Field(default=0, ge=0)
    n_threads: int | None = None


class ElementsConfig(_Part):
    """How elements are called.

    The `bp_fraction` of the bases that the mask opens most, or every bin whose mean mask reaches `threshold` when
    that is given; see `ciscribe.elements.call`.
    """

    bp_fraction: float = Field(default=0.1, gt=0, lt=1)
    threshold: float | None = Field(default=None, gt=0, lt=1)
    merge_bins: int = Field(default=0, ge=0)
    trim: float = Field(default=0.5, ge=0, le=1)
    max_per_gene: int = Field(default=24, ge=1)
    folds: list[Literal["train", "valid", "test"]] = ["test"]
    peak_tracks: list[str] | None = None
    """Tracks whose peaks stand beside the calls; None takes all."""
    peak_method: Literal["auto", "macs3", "local"] = "auto"


class ReportConfig(_Part):
    """What the report shows."""

    title: str | None = None
    n_loci: int = Field(default=4, ge=0)
    genes: list[str] = []


class AssayConfig(_Part):
    """Tables of sequences and what they did; see `ciscribe.data.reporter.read_reporter`."""

    path: str | list[str]
    sequence: str = "sequence"
    activity: str | list[str] = "activity"
    activities: str | None = None
    columns: list[str] | None = None
    separator: str | None = None
    where: dict[str, Any] = {}
    log: Literal["log2", "log10", "ln"] | None = None
    pseudocount: float = 0.0
    floor: float | None = None
    length: int | None = Field(default=None, ge=1)
    duplicates: Literal["error", "mean", "keep"] = "error"


class FoldsConfig(_Part):
    """Folds of a reporter assay: groups of similar sequences, or the values of a column, stay together."""

    by: str = "similarity"
    n: int = Field(default=5, ge=3)
    test: int = Field(default=0, ge=0)


class AugmentConfig(_Part):
    """Changes drawn anew for every training step; see `ciscribe.data.augment.Augment`."""

    shift: int = Field(default=0, ge=0)
    mutation: float = Field(default=0.0, ge=0, le=1)
    insertion: int = Field(default=0, ge=0)
    deletion: int = Field(default=0, ge=0)
    translocation: int = Field(default=0, ge=0)
    inversion: int = Field(default=0, ge=0)
    reverse_complement: float = Field(default=0.0, ge=0, le=1)
    n_per_sequence: int = Field(default=2, ge=0)
    fill: Literal["N", "roll"] = "N"


class AssayTrainConfig(_Part):
    """The training plan of a reporter assay; see `ciscribe.train.fit.FitSpec`."""

    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=2e-3, gt=0)
    final_learning_rate: float | None = 1e-6
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.2, ge=0, le=1)
    schedule: Literal["cosine", "onecycle", "constant"] = "onecycle"
    gradient_clip: float = Field(default=1.0, gt=0)
    average: float = Field(default=0.99, ge=0, lt=1)
    patience: int | None = 8
    augment: AugmentConfig = AugmentConfig()
    loss: Literal["mse", "smooth_l1", "poisson", "l1_kl"] = "mse"
    balance: bool = False
    """Classification: positives and negatives of a target weigh the same."""
    target_weights: list[float] | None = None
    freeze: list[str] = []
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str | None = None
    n_devices: int = Field(default=1, ge=1)
    n_workers: int = Field(default=0, ge=0)
    n_threads: int | None = None


class ReporterConfig(_Part):
    """From a reporter-assay table to a trained, evaluated model."""

    name: str
    seed: int = 0
    root: str = "."
    assay: AssayConfig
    folds: FoldsConfig = FoldsConfig()
    task: Literal["regression", "classification"] = "regression"
    model: ModelConfig = ModelConfig(name="deepstarr")
    both_strands: Literal["mean", "max"] | None = None
    motifs: str | list[str] | None = None
    motif_start: bool = False
    start_from: str | None = None
    train: AssayTrainConfig = AssayTrainConfig()
    report: ReportConfig = ReportConfig()


class BenchAssayConfig(AssayConfig):
    """One data set of a benchmark; sets of one `family` share sequences, so they share groups and folds."""

    family: str | None = None
    by: str = "similarity"
    motifs: str | list[str] | None = None
    models: list[str] | None = None
    train: dict[str, Any] = {}


class ContestantConfig(_Part):
    """One entry of a benchmark: a model, its plan, and the data set that it is trained on beforehand, if any."""

    name: str
    preset: str | None = None
    arguments: dict[str, Any] = {}
    both_strands: Literal["mean", "max"] | None = None
    motif_start: bool = False
    pretrain: dict[str, str] = {}
    """Data set → the set of its family that the model is trained on first; other data sets are left out."""
    train: dict[str, Any] = {}
    seeds: int | None = Field(default=None, ge=1)
    folds: int | None = Field(default=None, ge=1)


class TransferConfig(_Part):
    """Train on one data set (all of it), test on another; `models` are those of the first unless named."""

    train: str
    test: str
    models: list[str] | None = None


class BenchConfig(_Part):
    """Models × data sets, by cross-validation."""

    name: str
    seed: int = 0
    root: str = "."
    assays: dict[str, BenchAssayConfig] = Field(min_length=1)
    models: dict[str, ContestantConfig] = Field(min_length=1)
    folds: int = Field(default=5, ge=3)
    seeds: int = Field(default=3, ge=1)
    transfers: list[TransferConfig] = []
    train: AssayTrainConfig = AssayTrainConfig()


class GeneTableConfig(_Part):
    """Gene annotation: GTF, GFF3, BED or a table; `columns` maps our names of columns to the file's (or lists them)."""

    path: str
    columns: dict[str, str] | list[str] | None = None


class ElementTableConfig(_Part):
    """Candidate elements, or the peaks that make them: BED, narrowPeak, or a table with ``chrom, start, end``."""

    path: str
    peaks: bool = False
    """The intervals are peaks: the strongest are cut to 500 bp around their summit, and promoters join them."""
    n_strongest: int = Field(default=150_000, ge=1)


class ElementSignalConfig(_Part):
    """An assay on the elements: counts on the same intervals, or a track that is summed over them."""

    counts: str | None = None
    bigwig: str | None = None
    bedgraph: str | None = None
    total: float | None = Field(default=None, gt=0)
    """Reads of the library in millions become reads per million; None: values are on that scale already."""

    @model_validator(mode="after")
    def _one_source(self) -> "ElementSignalConfig":
        if sum(x is not None for x in (self.counts, self.bigwig, self.bedgraph)) != 1:
            raise ValueError("a signal on elements has exactly one of counts, bigwig, bedgraph")
        return self


class ContactsConfig(_Part):
    """A contact map; see `ciscribe.io.contacts.open_contacts`."""

    path: str
    resolution: int | None = Field(default=None, ge=1)
    chrom: str | None = None
    balanced: bool | None = None
    normalization: str | None = None
    source: Literal["hic", "average"] = "hic"


class LinksConfig(_Part):
    """From elements, genes and contacts to element–gene links."""

    name: str
    seed: int = 0
    root: str = "."
    cell: str = ""
    genes: GeneTableConfig
    expression: ExpressionConfig | None = None
    """Its columns are averaged; it says which genes are expressed."""
    elements: ElementTableConfig
    accessibility: ElementSignalConfig
    h3k27ac: ElementSignalConfig | None = None
    assay: Literal["dhs", "atac"] = "dhs"
    normalize_to: str | None = None
    """Table of activities by rank, to which those here are quantile-normalized; None leaves them as they are."""
    blacklist: str | None = None
    contacts: ContactsConfig | None = None
    gamma: float | None = Field(default=None, gt=0)
    scale: float | None = None
    max_distance: int = Field(default=5_000_000, gt=0)
    min_score: float = Field(default=0.001, ge=0)
    threshold: float | None = Field(default=None, ge=0)
    """Score from which a link is called; the published one for these inputs unless given."""
    combiner: str | None = None
    """A trained combiner (JSON of `ciscribe.links.combine.Combiner`), whose probability becomes the score."""
    crispri: str | None = None
    """Tested pairs to hold the links against."""
    genome: str | None = None
    motifs: str | list[str] | None = None
    """MEME files, looked for in the elements of called links; needs `genome`."""
    effects: str | None = None
    """Scored variants (``effects.parquet`` of ``ciscribe variants score``)."""
    report: ReportConfig = ReportConfig()

    @field_validator("expression")
    @classmethod
    def _only_which(cls, given: ExpressionConfig | None) -> ExpressionConfig | None:
        if given is not None and given.transform != "none":
            raise ValueError(f"transform '{given.transform}' would do nothing: links read only which genes are "
                             "expressed (above 1 in the units of the table); leave it out")
        return given


class GoalConfig(_Part):
    """What designs are for, in the units of the run; see `ciscribe.design.objective`."""

    kind: Literal["maximize", "minimize", "target", "specific"] = "maximize"
    track: str | None = None
    """Which target of the run; the only one unless named."""
    off: list[str] | None = None
    """Specific: the targets that must stay low; all others unless given."""
    gap: Literal["max", "mean"] = "max"
    value: float | None = None
    """Target: the level to be hit."""
    tolerance: float = Field(default=0.0, ge=0)
    clip: bool = True
    """Predictions beyond the measured range count as its end."""
    flanks: tuple[str, str] = ("", "")
    """Constant ends of the sequences of the run, which stay; what lies between them is designed."""
    both_strands: bool = False


class StartConfig(_Part):
    """Where designs start: sequences of a file or of the run itself, or from nothing."""

    path: str | None = None
    """FASTA, or a table with a column of sequences."""
    column: str = "sequence"
    choose: Literal["weakest", "strongest", "random", "none"] = "weakest"
    """Of the run's held-out sequences, where there is no file; ``none`` designs from nothing."""
    n: int = Field(default=16, ge=1)


class RulesConfig(_Part):
    """What every design keeps; see `ciscribe.design.rules`."""

    avoid: list[str] = []
    """Restriction enzymes and words of IUPAC letters, on both strands, junctions with the flanks included."""
    homopolymer: int | None = Field(default=None, ge=1)
    repeats: int | None = Field(default=None, ge=2)
    gc: tuple[float, float] | None = None
    gc_window: int | None = Field(default=None, ge=1)
    keep: list[str] = []
    """Motifs of the start that stay, or positions as ``start-end``, 0-based half-open."""
    max_edits: int | None = Field(default=None, ge=0)
    scope: list[str] = []
    """Positions that may change, as ``start-end``."""
    flanks: tuple[str, str] = ("", "")
    """Constant bases in the construct, for junctions."""


class GeneratorConfig(_Part):
    """The generator that a designer begins from; see `ciscribe.design.generators`."""

    name: str | None = None
    """The usual one of the designer unless given."""
    arguments: dict[str, Any] = {}
    fit: dict[str, Any] = {}
    """Fields of `ciscribe.train.generative.GenerativeSpec`."""
    level: Literal["highest"] | float | None = "highest"
    """Activity that is asked of it: what the goal likes best of all measured ones, a number, or none."""
    path: str | None = None
    """Folder of one that was fitted before."""

    @model_validator(mode="after")
    def _fitted_once(self) -> "GeneratorConfig":
        if self.path is not None and (self.arguments or self.fit):
            raise ValueError("path names a generator that was fitted before; leave out arguments and fit")
        return self


class DesignConfig(_Part):
    """From a trained model to new sequences with an audit."""

    name: str
    seed: int = 0
    root: str = "."
    run: str
    """Folder of a trained reporter run: the oracle."""
    others: list[str] = []
    """Folders of runs of other architectures; the lowest prediction counts."""
    judge: str | None = None
    """Folder of a run of another family, best on other data: it judges the designs and is never followed."""
    goal: GoalConfig = GoalConfig()
    start: StartConfig = StartConfig()
    rules: RulesConfig = RulesConfig()
    method: str = "greedy"
    options: dict[str, Any] = {}
    motifs: str | list[str] | None = None
    """MEME files of what `implant` writes."""
    syntax: str | None = None
    """Folder of a run whose rules ``ciscribe syntax`` found, for `grammar`."""
    generator: GeneratorConfig | None = None
    n: int = Field(default=64, ge=1)
    budget: int = Field(default=20_000, ge=1)
    infeasible: Literal["error", "repair"] = "repair"
    diversity: float = Field(default=0.0, ge=0, le=1)
    calibration: str | None = None
    """Table of measured designs, from which it is learned how much of a predicted gain to expect."""
    title: str | None = None


class RunConfig(_Part):
    """Everything a run needs to know."""

    name: str
    seed: int = 0
    data: DataConfig
    window: WindowConfig
    split: SplitConfig
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    elements: ElementsConfig = ElementsConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _one_contact(self) -> "RunConfig":
        if self.data.contacts is not None and self.window.contact:
            raise ValueError("data.contacts reads measured contacts, window.contact makes them from the distance; "
                             "leave one out")
        return self


class CandidatesConfig(_Part):
    """Candidate elements of each gene, for models that read no window; see `ciscribe.data.candidates`."""

    path: str | None = None
    """BED, narrowPeak or a table with ``chrom, start, end``; None calls peaks from the tracks of the run."""
    columns: dict[str, str] = {}
    """Our names of columns → the table's."""
    n: int = Field(default=60, ge=2)
    length: int = Field(default=2000, ge=2)
    max_distance: int = Field(default=100_000, ge=1)
    min_distance: int = Field(default=1000, ge=0)


class ContenderConfig(_Part):
    """One row of a comparison: a registered model or a baseline, what it may read, and how it is trained."""

    name: str
    preset: str | None = None
    arguments: dict[str, Any] = {}
    signals: Literal["all", "none"] | list[str] = "all"
    """Tracks that it may read; ``none`` takes the context of the window away too."""
    window: dict[str, Any] = {}
    train: dict[str, Any] = {}
    candidates: CandidatesConfig | None = None
    ablations: bool = False
    """Of seq2exp: a further row for each of its ablations (`ciscribe.workflow.compare.ABLATIONS`)."""
    folds: list[str] | None = None
    """Folds that it is fitted on; all unless given."""
    seeds: int | None = Field(default=None, ge=1)


class HeldOutConfig(_Part):
    """One fold of a comparison: what is tested on, and what chooses the epoch."""

    test: list[str] = Field(min_length=1)
    valid: list[str] = Field(min_length=1)
    train: list[str] | None = None

    @property
    def name(self) -> str:
        """The chromosomes or regions that are tested."""
        return "+".join(self.test)


class CompareConfig(_Part):
    """Models × folds × seeds on the data of one run."""

    name: str
    seed: int = 0
    run: str | dict[str, Any]
    """Configuration of a run (a file, beside this one; or its keys), whose data, window and plan are taken."""
    folds: int | list[HeldOutConfig] = 6
    """Number of groups of whole chromosomes, each of which is tested once; or what is held out, fold by fold."""
    seeds: int = Field(default=3, ge=1)
    models: dict[str, ContenderConfig] = Field(min_length=1)
    reference: str | None = None
    """Row that the others are compared with; the best baseline unless given."""
    window: dict[str, Any] = {}
    train: dict[str, Any] = {}
    fractions: list[float] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    """Shares of the bins of a window of the rate–distortion curve."""
    widths: list[int] | None = None
    """Widths in bp of the truncation curve; 500, 1,000, 2,000, 5,000, … up to the window unless given."""


Config = TypeVar("Config", bound=_Part)


def read_config(path: str | os.PathLike[str], kind: type[Config] = RunConfig) -> Config:  # type: ignore[assignment]
    """Read and check a configuration file of a run, or of another `kind`.

    Raises
    ------
    DataMissingError
        When there is no such file.
    ConfigError
        For YAML that does not parse, unknown keys (with the nearest), wrong types and impossible values.
    """
    path = Path(path)
    if not path.is_file():
        raise DataMissingError(f"there is no configuration at {path}; examples are in configs/")
    try:
        raw = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must be a mapping of keys; got {type(raw).__name__}")
    return parse_config(raw, str(path), kind)


def parse_config(raw: dict[str, Any], where: str = "the configuration",
                 kind: type[Config] = RunConfig) -> Config:  # type: ignore[assignment]
    """Check a configuration that is already a dictionary; errors as in `read_config`."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            key = ".".join(str(k) for k in fault["loc"])
            if fault["type"] == "extra_forbidden":
                known = _keys_at(kind, fault["loc"][:-1])
                lines.append(f"  {key}: unknown key; {nearest(str(fault['loc'][-1]), known)}")
            else:
                came = "" if fault["type"] == "missing" else f"; got {fault['input']!r}"
                lines.append(f"  {key}: {fault['msg'].removeprefix('Value error, ')}{came}")
        raise ConfigError(f"{where} cannot be used; {len(lines)} fault(s):\n" + "\n".join(lines)) from error


def _keys_at(kind: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    part: Any = kind
    for key in location:
        if isinstance(key, int) or key not in part.model_fields:  # an entry of a list or of a dictionary
            continue
        annotation = part.model_fields[key].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        part = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), part)
    return list(part.model_fields)


def resolve_root(root: str, base: Path) -> Path:
    """Folder that a `root` means: environment variables filled in.

    A relative path is relative to `base` (the folder of the configuration), one that comes from an environment
    variable to the working directory.

    Examples
    --------
    >>> resolve_root("${CISCRIBE_NOT_SET:data}", Path("/a")).as_posix()
    '/a/data'
    """
    def fill(match: re.Match[str]) -> str:
        if match["name"] in os.environ:
            return str(Path(os.environ[match["name"]]).expanduser().absolute())
        value = match["default"]
        if value is None:
            raise ConfigError(f"root {root!r} needs the environment variable {match['name']}, which is not set")
        return value

    filled = re.sub(r"\$\{(?P<name>\w+)(?::(?P<default>[^}]*))?\}", fill, root)
    return base / Path(filled).expanduser()


def write_config(config: BaseModel) -> str:
    """YAML text of a configuration, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
