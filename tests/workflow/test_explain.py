"""The explanation of a run, of a reporter assay and of genes: files that fit each other, pages, and what is refused."""

import json
import re
import shutil
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

import small_world as small
from ciscribe.config import ReporterConfig, parse_config
from ciscribe.errors import (
    CiscribeError,
    ConfigError,
    DataMissingError,
    InputError,
    SchemaError,
    UnknownNameError,
    UnsupportedError,
)
from ciscribe.interpret.cards import CARDS
from ciscribe.models import registry
from ciscribe.oracle import Oracle
from ciscribe.report.explain_files import read_explanation
from ciscribe.report.run import explanation_cards
from ciscribe.schema import check_hits
from ciscribe.sequence import N, decode, encode, reverse_complement_codes
from ciscribe.workflow.explain import FILES, compare_attributions, explain, find_motifs, find_syntax
from ciscribe.workflow.reporter import ReporterRun
from ciscribe.workflow.run import Run
from ciscribe.workflow.subject import open_run, subject
from planted import LENGTH, MOTIF, one_model, planted, write

SECTIONS = {"explain": ("contributions", "changes"), "motifs": ("patterns", "hits"), "syntax": ("syntax",),
            "attribution benchmark": ("robustness",)}
OF_SEQUENCES = [part for part in FILES if part != "modalities"]  # a reporter assay has no signals
MAPS = ["attributions.npz", "ism.npz", "tiles.parquet"]
QUIET = {"tell": lambda line: None, "progress": False}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny networks: threads would wait for each other
    yield
    torch.set_num_threads(before)


def meme(motifs):
    """MEME file of words, each base with 0.97."""
    lines = ["MEME version 4\n\nALPHABET= ACGT\n"]
    for name, word in motifs.items():
        lines += [f"MOTIF {name}\nletter-probability matrix: alength= 4 w= {len(word)}",
                  *(" ".join("0.97" if base == letter else "0.01" for base in "ACGT") for letter in word)]
    return "\n".join([*lines, ""])


def random_words(n, seed=0):
    rng = np.random.default_rng(seed)
    return {f"other{i}": decode(rng.integers(0, 4, 9, dtype=np.uint8)) for i in range(n)}


def assay(folder, table=None, **changes):
    """A trained run of two targets on the planted assay."""
    write(planted() if table is None else table, folder / "assay.tsv")
    raw = one_model(folder, **{"train": {"epochs": 12}, "assay": {"path": "assay.tsv", "activity":
                                                                  ["activity", "weak"]}} | changes)
    ReporterRun(folder / "run", parse_config(raw, "it.yaml", ReporterConfig), **QUIET).run("train")
    return folder / "run"


def names(folder):
    return {path.name for path in (folder / "explain").iterdir()}


def page(folder):
    return (folder / "report.html").read_text()


def anchors(text):
    return re.findall(r'<section[^>]* id="([^"]+)"', text)


def saved(folder):
    return read_explanation(folder / "explain")


@contextmanager
def no_pages():
    """Drawing takes longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ciscribe.workflow.explain.write_explain_report", lambda *arguments, **options: None)
        yield


@pytest.fixture
def pageless():
    with no_pages():
        yield


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """A finished run of an assay with all four parts, and what they told."""
    folder, lines = tmp_path_factory.mktemp("explained"), []
    (folder / "known.meme").write_text(meme({"planted": MOTIF} | random_words(26)))
    run = assay(folder, motifs="known.meme")
    ReporterRun(run, **QUIET).run()
    options = {"tell": lines.append, "progress": False}
    with no_pages():
        assert explain(run, n=120, **options) == run / "explain"
        assert find_motifs(run, engine="clusters", **options) == run / "explain"
        assert find_syntax(run, n_backgrounds=11, **options) == run / "explain"
    table, out = compare_attributions(run, methods=["deepshap", "gradient", "deeplift", "ism"], n=7, **options)
    assert out == run / "explain"
    return run, lines, table


@pytest.fixture
def copy(explained, tmp_path):
    shutil.copytree(explained[0], tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def genes(tmp_path_factory):
    """A finished run of genes on both strands, with signals, covariates, N and a blacklist."""
    folder = tmp_path_factory.mktemp("genes")
    raw = small.write_inputs(folder / "inputs", (43, 7, 5))
    raw["data"]["covariates"] = ["gc"]
    raw |= {"elements": {"bp_fraction": 0.3}, "report": {"n_loci": 0}}
    return Run(folder / "run", parse_config(raw), **QUIET).run()


# -- a reporter assay ----------------------------------------------------------------------------------------


def test_parts__make_every_file_and_a_page_with_every_section(explained):
    run, lines, _ = explained
    made = (file for part in OF_SEQUENCES for file in FILES[part] if file != "consistency.parquet")
    assert names(run) == {*made, "provenance.json", "report.html"}
    assert anchors(page(run / "explain")) == [*(a for part in SECTIONS.values() for a in part), "cards", "provenance"]
    assert re.search(r"deeplift, \d+ s; contributions add up, relative error \d\.\de-\d+", lines[1])
    assert not [line for line in lines if "removed" in line]


def test_explain__maps_are_those_of_the_model(explained):
    run, _, _ = explained
    maps, ism = saved(run).maps, saved(run).ism
    rows = [int(name.removeprefix("seq")) for name in maps.regions]
    assert (len(rows), rows, maps.tracks, maps.units) == (120, sorted(set(rows)), ["activity", "weak"], "activity")
    table = planted().iloc[rows]
    np.testing.assert_array_equal(maps.codes, np.stack([encode(s) for s in table["sequence"]]))
    np.testing.assert_allclose(maps.observed, table[["activity", "weak"]], rtol=1e-5)
    oracle = Oracle(registry.load(run / "model")[0], device="cpu")
    codes = torch.from_numpy(maps.codes)
    np.testing.assert_allclose(maps.predicted, oracle.predict(codes), rtol=1e-4, atol=1e-5)
    size = np.abs(maps.contributions()).sum(axis=(1, 2))
    most = np.argsort(-size, kind="stable")[:3]
    assert ism.regions == [maps.regions[i] for i in most]
    mutant = maps.codes[most[1:2]].copy()
    mutant[0, 17] = (mutant[0, 17] + 1) % 4
    change = oracle.predict(torch.from_numpy(mutant)).numpy()[0] - maps.predicted[most[1]]
    np.testing.assert_allclose(ism.values[1, mutant[0, 17], 17], change, atol=1e-5)
    tiles = saved(run).tables["tiles"]
    assert list(tiles["region"].unique()) == list(most)
    assert set(tiles["track"]) == {"activity", "weak"}
    np.testing.assert_allclose(tiles["before"], [maps.predicted[r, maps.tracks.index(t)] for r, t in zip(
        tiles["region"], tiles["track"], strict=True)], rtol=1e-4, atol=1e-5)


def test_find_motifs__finds_and_names_the_planted_motif_where_it_stands(explained):
    run, lines, _ = explained
    found, maps = saved(run), saved(run).maps
    assert found.tables["matches"].iloc[0][["pattern", "match"]].tolist() == ["pos_0", "planted"]
    assert next(line for line in lines if line.startswith("  pos_0: ")).split(";")[1].startswith(" planted (q ")
    hits = found.tables["hits"]
    check_hits(hits)
    assert (hits["chrom"] == np.array(maps.regions)[hits["region"]]).all()
    best = hits.loc[hits["motif"] == "pos_0"].nlargest(30, "importance")
    core = 0
    for row in best.to_dict("records"):
        codes = maps.codes[row["region"], row["start"]:row["end"]]
        core += "TGACGT" in decode(codes if row["strand"] == "+" else reverse_complement_codes(codes))
    assert core >= 27
    assert "MOTIF pos_0" in (run / "explain" / "patterns.meme").read_text()


def test_find_syntax__asks_what_fits_and_names_the_tracks(explained):
    run, lines, _ = explained
    found = saved(run)
    spacing = found.tables["spacing"]
    width = LENGTH - spacing["gap"].max()
    assert 10 <= width <= 24
    assert width % 2 == 0  # two motifs and the largest gap fill a sequence
    assert set(spacing["track"]) == {"activity", "weak"}
    assert (spacing["n"] == 11).all()
    assert set(found.tables["position"]["motif"]) == {p.name for p in found.patterns}
    assert found.surrogate["track"] == "activity"
    assert found.surrogate["r2"] > 0.5
    assert f"R² {found.surrogate['r2']:.2f}" in next(line for line in lines if "grammar" in line)
    assert found.tables["observed"]["count"].sum() > 0


def test_compare__one_row_a_method_and_track_and_each_method_once(explained):
    run, _, table = explained
    assert set(zip(table["method"], table["track"], strict=True)) == {
        (m, t) for m in ("deeplift", "gradient", "ism", "random") for t in ("activity", "weak")}
    assert len(table) == 8
    assert set(saved(run).tables["randomization"]["method"]) == {"deeplift", "gradient"}
    pd.testing.assert_frame_equal(table, saved(run).tables["methods"])


def test_provenance__says_what_made_each_part(explained):
    run, _, _ = explained
    record = json.loads((run / "explain" / "provenance.json").read_text())
    assert list(record) == ["model", *OF_SEQUENCES]
    assert record["explain"]["methods"] == ["deeplift", "ism", "tile_deletion"]
    assert (record["motifs"]["track"], record["syntax"]["n_backgrounds"]) == ("activity", 11)
    named = {name for part in OF_SEQUENCES for name in record[part]["methods"]}
    assert {"seqlet-clusters", "tomtom", "hit-caller", "syntax_surrogate", "weight_randomization"} <= named
    assert named <= {card.name for card in CARDS}
    assert {card.name for card in explanation_cards(record)} == named
    for name in named:
        assert name in page(run / "explain")


def test_report__of_the_run_is_out_of_date_and_gains_the_sections(copy):
    job = ReporterRun(copy, **QUIET)
    assert [step for step in job.STEPS if not job.is_done(step)] == ["report"]
    assert "contributions" not in anchors(page(copy))
    job.run()
    text = page(copy)
    assert {a for part in SECTIONS.values() for a in part} <= set(anchors(text))
    assert "Splits the difference" in text or "splits the difference" in text  # the card of DeepLIFT
    ids = re.findall(r' id="([^"]+)"', re.sub(r"<svg.*?</svg>", "", text, flags=re.DOTALL))
    assert len(ids) == len(set(ids))
    assert job.is_done("report")


def test_explain__again_removes_what_no_longer_fits(copy):
    lines = []
    explain(copy, n=23, method="gradient", mutate=0, tell=lines.append, progress=False)
    assert any(line == "  removed, as they no longer fit: motifs, syntax" for line in lines)
    assert names(copy) == {"attributions.npz", "report.html", "provenance.json", *FILES["attribution benchmark"][:3]}
    assert len(saved(copy).maps.regions) == 23
    assert list(json.loads((copy / "explain" / "provenance.json").read_text())) == [
        "model", "attribution benchmark", "explain"]
    assert "patterns" not in anchors(page(copy / "explain"))


def test_find_motifs__again_removes_the_rules(copy, pageless):
    lines = []
    find_motifs(copy, engine="clusters", track="weak", tell=lines.append, progress=False)
    assert any(line == "  removed, as they no longer fit: syntax" for line in lines)
    assert not names(copy) & set(FILES["syntax"])
    assert set(MAPS) <= names(copy)
    assert json.loads((copy / "explain" / "provenance.json").read_text())["motifs"]["track"] == "weak"


def test_open__a_model_that_was_trained_anew_has_no_explanation_yet(copy):
    name, arguments, facts = registry.describe(copy / "model")
    torch.manual_seed(97)
    registry.save(copy / "model", name, registry.create(name, **arguments), arguments, **facts)
    ReporterRun(copy, **QUIET).run("report", again=True)
    assert "contributions" not in anchors(page(copy))
    lines = []
    find_syntax(copy, words=["ttgaca", "TTGACA"], n_backgrounds=3, max_gap=3, tell=lines.append, progress=False)
    assert lines[0] == "  the model was trained anew"
    assert lines[1].endswith("fit: explain, motifs, syntax, attribution benchmark")
    assert names(copy) == {"interactions.parquet", "spacing.parquet", "position.parquet", "report.html",
                           "provenance.json"}
    spacing = saved(copy).tables["spacing"]
    assert set(spacing["gap"]) == {0, 1, 2, 3}
    assert set(spacing["motif_a"]) == {"TTGACA"}


def test_explain__is_the_same_each_time_and_another_with_another_seed(explained, tmp_path, pageless):
    shutil.copytree(explained[0], tmp_path / "run")
    made = []
    for seed in (3, 3, 5):
        explain(tmp_path / "run", n=7, mutate=1, seed=seed, **QUIET)
        made.append(saved(tmp_path / "run").maps)
    assert made[0].regions == made[1].regions != made[2].regions
    np.testing.assert_array_equal(made[0].values, made[1].values)


def test_explain__of_named_sequences_and_one_track(copy, pageless):
    explain(copy, genes=["seq7", "seq3", "seq7"], track="weak", **QUIET)
    both = subject(copy, genes=["seq7", "seq3"])
    maps = saved(copy).maps
    assert (maps.regions, maps.tracks) == (["seq7", "seq3"], ["weak"])
    oracle, codes, _, _ = both.inputs
    np.testing.assert_allclose(maps.predicted[:, 0], oracle.predict(torch.from_numpy(codes))[:, 1], atol=1e-5)
    np.testing.assert_allclose(maps.observed[:, 0], both.observed[:, 1])


def test_compare__other_runs_by_a_name_of_their_own(explained, tmp_path, pageless):
    run, _, _ = explained
    for name in ("a/seed", "b/seed"):
        shutil.copytree(run, tmp_path / name)
    compare_attributions(tmp_path / "a/seed", methods=["gradient"], others=[run, tmp_path / "b/seed"], n=5, **QUIET)
    table = saved(tmp_path / "a/seed").tables["consistency"]
    assert set(table["b"]) | set(table["a"]) == {"this run", "run", "seed"}
    assert table.loc[table["metric"] == "pearson", "value"].to_numpy() == pytest.approx(1)
    twice = [tmp_path / "a/seed", tmp_path / "b/seed"]
    compare_attributions(run, methods=["gradient"], others=twice, n=5, track="weak", **QUIET)
    assert set(saved(run).tables["consistency"]["b"]) == {str(path) for path in twice}
    (run / "explain" / "consistency.parquet").unlink()


def test_database__of_two_files_with_one_name(copy, tmp_path, pageless):
    for name in ("one", "two"):
        (tmp_path / f"{name}.meme").write_text(meme({"planted": MOTIF if name == "two" else "AACCAACC"}
                                                    | {f"{name}{k}": v for k, v in random_words(17).items()}))
    find_motifs(copy, database=[tmp_path / "one.meme", tmp_path / "two.meme"], engine="clusters", **QUIET)
    assert saved(copy).tables["matches"]["match"].iloc[0] == "planted (two.meme)"


# -- tasks, N, memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changes", "units"), [
    ({"assay": {"path": "assay.tsv", "activity": "active"}, "task": "classification"}, "log-odds"),
    ({"assay": {"path": "assay.tsv", "activity": "active"}, "train": {"epochs": 1, "loss": "poisson"}},
     "activity before softplus"),
    ({"assay": {"path": "assay.tsv", "activity": "active", "log": "log2", "pseudocount": 1}}, "log2(activity)"),
])
def test_units__are_those_of_what_the_model_returns(tmp_path, changes, units):
    run = assay(tmp_path, **{"train": {"epochs": 1}} | changes)
    explain(run, n=5, **QUIET)
    maps = saved(run).maps
    assert maps.units == units
    assert (maps.observed is not None) == units.startswith("log2")  # not beside predictions of other units
    assert "measured" not in page(run / "explain") or maps.observed is not None


def test_sequences__with_n_at_both_ends(tmp_path, pageless):
    table = planted(90)
    table["sequence"] = ["NNNNNNN" + s[7:-5] + "NNNNN" for s in table["sequence"]]
    run = assay(tmp_path, table, train={"epochs": 1})
    explain(run, **QUIET)
    maps = saved(run).maps
    assert (maps.codes[:, :7] == N).all()
    assert not maps.contributions()[:, :7].any()
    find_syntax(run, words=["TGACGTCA"], n_backgrounds=3, max_gap=2, **QUIET)


def test_subject__takes_fewer_sequences_of_many_tracks_unless_told(explained, monkeypatch):
    run, _, _ = explained
    monkeypatch.setattr("ciscribe.workflow.subject._NUMBERS", 4 * LENGTH * 2 * 13)
    assert len(subject(run).codes) == 13
    assert len(subject(run, track="weak").codes) == 26
    assert len(subject(run, n=40).codes) == 40
    assert len(subject(run, fold="test").take(np.array([2, 0])).regions) == 2
    monkeypatch.setattr("ciscribe.workflow.subject.LONG", 40)
    assert len(subject(run, usual=(50, 3)).codes) == 3


def test_explain__of_long_windows_is_not_mutated(copy, monkeypatch, pageless):
    monkeypatch.setattr("ciscribe.workflow.explain.LONG", 40)
    explain(copy, n=5, **QUIET)
    assert names(copy) & set(MAPS) == {"attributions.npz", "tiles.parquet"}
    lines = []
    compare_attributions(copy, n=2, tell=lines.append, progress=False)
    assert not [line for line in lines if "ism" in line]


# -- genes ---------------------------------------------------------------------------------------------------


def test_genes__explained_with_signals_covariates_and_strand(genes, pageless):
    job = Run(genes, **QUIET)
    explain(genes, genes=["name2", "chr1g1"], **QUIET)
    maps, store = saved(genes).maps, job.store
    rows = np.array([np.flatnonzero(store.genes[column] == value)[0] for column, value in (
        ("gene_name", "name2"), ("gene_id", "chr1g1"))])
    assert maps.regions == store.genes["gene_id"].iloc[rows].tolist()
    assert (maps.method, maps.units, maps.tracks) == ("corrected_gradient", "expression", list(small.CELLS))
    np.testing.assert_array_equal(maps.codes, store.read_codes(rows))  # on the strand of the gene
    assert set(store.genes["strand"].iloc[rows]) == {"+", "-"}
    batch = store.batch(rows)
    expected = job.oracle().predict(batch.codes, batch.signals, batch.covariates)
    np.testing.assert_allclose(maps.predicted, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(maps.observed, store.targets[rows])
    assert batch.covariates.shape[1] == 1


def test_genes__rules_of_words_and_the_report_of_the_run(genes, tmp_path, pageless):
    shutil.copytree(genes, tmp_path / "run")
    run = tmp_path / "run"
    explain(run, n=7, mutate=1, track="blood", **QUIET)
    find_motifs(run, engine="clusters", min_seqlets=2, **QUIET)
    find_syntax(run, words=["TGACGTCA", "TATAAR"], n_backgrounds=3, max_gap=5, **QUIET)
    assert set(saved(run).tables["position"]["motif"]) == {"TGACGTCA", "TATAAR"}
    assert "observed.parquet" not in names(run)
    job = Run(run, **QUIET)
    assert [step for step in job.STEPS if not job.is_done(step)] == ["report"]
    job.run()
    assert {"contributions", "changes", "patterns", "syntax", "elements"} <= set(anchors(page(run)))
    assert job.is_done("report")


def test_genes__compare_leaves_out_what_does_not_support_the_model(genes, tmp_path, pageless):
    shutil.copytree(genes, tmp_path / "run")
    lines = []
    table, _ = compare_attributions(tmp_path / "run", methods=["deeplift", "gradient"], fold="valid", n=3,
                                    track="skin", tell=lines.append, progress=False)
    assert set(table["method"]) == {"gradient", "random"}
    assert set(table["track"]) == {"skin"}
    assert lines[0].startswith("  deeplift is left out: DeepLIFT has no rule for ")
    with pytest.raises(UnsupportedError, match="integrated gradients"):
        compare_attributions(tmp_path / "run", methods=["deepshap"], n=3, **QUIET)


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "options", "error", "says"), [
    (explain, {"method": "deeplft"}, UnknownNameError, "no attribution method is called 'deeplft'; did you mean"),
    (explain, {"fold": "tset"}, ConfigError, "fold is one of all, train, valid, test; got 'tset'"),
    (explain, {"genes": ["seq1", "sqe2", "x"]}, ConfigError,
     "2 of 3 names are not in this run of 300 sequences; first: 'sqe2'"),
    (explain, {"n": 0}, ConfigError, "at least 1 sequence is needed; got n=0"),
    (explain, {"track": "weka"}, ConfigError, "no target is called 'weka' here; did you mean 'weak'"),
    (find_motifs, {"track": "weka"}, ConfigError, "no target is called 'weka' here; did you mean 'weak'"),
    (find_motifs, {"engine": "modsico"}, UnknownNameError, "unknown engine 'modsico'; did you mean 'modisco'"),
    (find_motifs, {"database": ["none.meme"]}, DataMissingError, "none.meme"),
    (find_motifs, {"min_seqlets": 10_000}, SchemaError, "a pattern needs 10000 seqlets; found "),
    (find_syntax, {"words": ["TGAC", "TGJC"]}, ConfigError, "'TGJC', of which 'J' is none"),
    (find_syntax, {"words": ["NNN"]}, ConfigError, "not N alone"),
    (find_syntax, {"words": ["TGACGTCATGACGTCATGACGTCA"]}, ConfigError,
     "two motifs of 24 bp do not fit into sequences of 41 bp; ask about shorter words"),
    (find_syntax, {"max_gap": -1}, ConfigError, "max_gap >= 0; got 6, 4 and -1"),
    (find_syntax, {"n_backgrounds": 1}, SchemaError, "2 backgrounds or more"),
    (compare_attributions, {"methods": ["gradient", "deeplft"]}, UnknownNameError, "no attribution method is called"),
    (compare_attributions, {"others": ["nowhere"]}, DataMissingError, "nowhere/model is not a model folder"),
])
def test_parts__refuse_and_leave_what_there_is(explained, part, options, error, says):
    run, _, _ = explained
    before = {path: path.stat().st_mtime_ns for path in (run / "explain").iterdir()}
    with pytest.raises(error, match=re.escape(says)) as caught:
        part(run, **options, **QUIET)
    assert isinstance(caught.value, CiscribeError)
    assert {path: path.stat().st_mtime_ns for path in (run / "explain").iterdir()} == before


def test_explain__a_method_without_an_answer_names_the_layer(genes):
    with pytest.raises(UnsupportedError, match=r"mixer\.scanners\.0.*explain the model with integrated gradients or"):
        explain(genes, method="deeplift", n=2, **QUIET)


def test_parts__need_a_trained_run(copy, tmp_path):
    with pytest.raises(DataMissingError, match=r"is not a run folder \(no config\.yaml\); make one with: ciscribe run"):
        explain(tmp_path, **QUIET)
    shutil.rmtree(copy / "model")
    for part in (explain, find_motifs, find_syntax):
        with pytest.raises(DataMissingError, match="holds no trained model yet; train it with: ciscribe reporter CON"):
            part(copy, **QUIET)
    assert not (tmp_path / "explain").exists()


def test_find_syntax__needs_motifs_or_words(copy):
    for file in FILES["motifs"]:
        (copy / "explain" / file).unlink()
    with pytest.raises(DataMissingError, match=r"has no motifs yet; find them with: ciscribe motifs .* --words TTGACA"):
        find_syntax(copy, **QUIET)


def test_find_motifs__of_a_model_that_does_not_respond(copy, pageless):
    name, arguments, facts = registry.describe(copy / "model")
    model = registry.create(name, **arguments)
    for parameter in model.parameters():
        parameter.data.zero_()
    registry.save(copy / "model", name, model, arguments, **facts)
    lines = []
    explain(copy, n=5, mutate=1, tell=lines.append, progress=False)
    with pytest.raises(SchemaError, match=r"all .* 0"):
        find_motifs(copy, engine="clusters", **QUIET)
    assert "  all contributions are 0: the model does not respond to these sequences" in lines
    assert set(MAPS) <= names(copy)  # explained, as there was nothing of this model
    assert not names(copy) & set(FILES["motifs"])


def test_compare__runs_of_other_targets_are_refused(explained, tmp_path):
    other = assay(tmp_path, train={"epochs": 1}, assay={"path": "assay.tsv", "activity": "weak"})
    with pytest.raises(ConfigError, match=r"other targets than .*: \['weak'\] and \['activity', 'weak'\]"):
        compare_attributions(explained[0], others=[other], **QUIET)


def test_subject__an_assay_that_changed_since_is_refused(tmp_path):
    run = assay(tmp_path, planted(90), train={"epochs": 1})
    write(planted(80), tmp_path / "assay.tsv")
    with pytest.raises(InputError, match=r"holds other sequences \(80\) than when the model was trained \(90\)"):
        subject(run)


def test_open_run__tells_the_two_kinds_apart(explained, genes):
    assert isinstance(open_run(explained[0]), ReporterRun)
    assert isinstance(open_run(genes), Run)
