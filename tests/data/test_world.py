"""The simulated world says the truth: every number it prints is recomputed here another way."""

import inspect
import json

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from ciscribe.data.grammar import WorldOracle
from ciscribe.data.motif_table import CELLS, FACTORS, factor
from ciscribe.data.world import ELEMENT_KINDS, SIGNAL_BIN, TRUE_EFFECT, World, world
from ciscribe.errors import SchemaError, UnknownNameError
from ciscribe.io.bed import read_bed
from ciscribe.io.expression import read_expression
from ciscribe.io.genes import read_genes
from ciscribe.io.genome import Genome
from ciscribe.io.tracks import read_bigwig
from ciscribe.io.variants import read_vcf
from ciscribe.schema import check_intervals
from ciscribe.sequence import N, encode, reverse_complement_codes

HALF = 11_264


@pytest.fixture(scope="module")
def small() -> World:
    return world(n_genes=61, n_chroms=3, seed=5)


def best_site(name: str) -> np.ndarray:
    return factor(name).pwm.argmax(axis=0).astype(np.uint8)


def toy(*placed: tuple[int, str], length: int = 6007) -> np.ndarray:
    """A run of A with perfect sites at the given starts; A alone makes no site."""
    codes = np.zeros((1, length), dtype=np.uint8)
    for start, name in placed:
        site = best_site(name)
        codes[0, start : start + len(site)] = site
    return codes


# ---- motifs ----

def test_factors__are_real_motifs_with_sources():
    assert len(FACTORS) >= 12
    for f in FACTORS:
        assert np.allclose(f.ppm.sum(axis=0), 1)
        assert f.source.startswith("MA")
        assert f.threshold < f.best
    named = {name for cell in CELLS.values() for name in cell}
    assert named <= {f.name for f in FACTORS}


def test_factors__a_perfect_site_is_one_site():
    oracle = WorldOracle()
    for i, f in enumerate(FACTORS):
        sites = oracle.sites(toy((1000, f.name), length=2003))
        assert sites["start"].tolist() == [1000], f.name
        assert sites["factor"].tolist() == [i]
        assert sites["affinity"].tolist() == pytest.approx([1.0])


# ---- the oracle on sequences made by hand ----

def test_sites__equal_a_slow_scan():
    oracle = WorldOracle()
    codes = np.random.default_rng(3).integers(0, 4, (5, 307)).astype(np.uint8)
    codes[1, 150:167] = N
    for row, f in enumerate(FACTORS[:5]):
        site = f.pwm.argmax(axis=0).astype(np.uint8)
        codes[row, 0 : f.width] = site  # at the very ends of a window
        codes[row, -f.width :] = reverse_complement_codes(site)
    slow = {}
    for w, row in enumerate(codes):
        for i, f in enumerate(FACTORS):
            for s in range(len(row) - f.width + 1):
                here = row[s : s + f.width]
                if (here == N).any():
                    continue
                both = (here, 3 - here[::-1])
                score = max(float(f.pwm[c, np.arange(f.width)].sum()) for c in both)
                if score >= f.threshold:
                    slow[w, s, i] = 0.4 + 0.6 * (score - f.threshold) / (f.best - f.threshold)
    fast = oracle.sites(codes)
    assert set(zip(fast["window"], fast["start"], fast["factor"], strict=True)) == set(slow)
    keys = zip(fast["window"], fast["start"], fast["factor"], strict=True)
    assert np.allclose(fast["affinity"], [slow[key] for key in keys])
    assert (fast["affinity"] <= 1 + 1e-9).all()


def test_oracle__silent_sequence_has_base_expression():
    oracle = WorldOracle()
    assert np.allclose(oracle(toy(), 3001), oracle.base)
    assert np.allclose(oracle(np.full((2, 401), N, np.uint8), 200), oracle.base)


def test_oracle__pioneer_opens_and_activator_adds_by_the_printed_law():
    oracle = WorldOracle(("liver", "blood", "neuron"))
    codes = toy((1000, "FOXA2"), (1060, "HNF1A"))
    tss = 3001
    center = 1000 + factor("FOXA2").width / 2
    expected = []
    for cell in oracle.cells:
        opening = CELLS[cell]["FOXA2"]
        openness = opening**2 / (opening**2 + oracle.half_open**2)
        activity = openness * factor("HNF1A").weight * CELLS[cell]["HNF1A"]
        expected.append(oracle.base + activity / (1 + (tss + 0.5 - center) / oracle.contact_scale))
    assert np.allclose(oracle(codes, tss)[0], expected)
    assert np.allclose(oracle(toy((1060, "HNF1A")), tss), oracle.base)  # closed
    assert np.allclose(oracle(toy((1000, "CTCF"), (1060, "HNF1A")), tss), oracle.base)  # open, not active
    assert np.allclose(oracle(toy((1000, "FOXA2"), (1200, "HNF1A")), tss), oracle.base)  # out of reach


def test_oracle__synergy_needs_its_spacing():
    oracle = WorldOracle(("liver",))
    first, second = oracle.partners
    width = factor(first).width

    def at_gap(gap: int) -> float:
        return float(oracle(toy((1000, "FOXA2"), (1030, first), (1030 + width + gap, second)), 3001)[0, 0])

    apart = at_gap(oracle.spacing[1] + 1)
    assert at_gap(oracle.spacing[0] - 1) == pytest.approx(apart)
    act = CELLS["liver"]
    openness = act["FOXA2"] ** 2 / (act["FOXA2"] ** 2 + oracle.half_open**2)
    extra = oracle.synergy * act[first] * act[second] * openness * oracle.contact(3001.5 - 1006)
    for gap in (oracle.spacing[0], 11, oracle.spacing[1]):
        assert at_gap(gap) - apart == pytest.approx(float(extra))


def test_oracle__repressor_silences_only_where_it_is_expressed():
    oracle = WorldOracle(("liver", "neuron"))
    enhancer = ((1000, "FOXA2"), (1030, "FOS::JUN"), (1050, "FOS::JUN"))
    without, with_rest = oracle(toy(*enhancer), 3001)[0], oracle(toy(*enhancer, (1070, "REST")), 3001)[0]
    assert without.min() > oracle.base + 0.02
    assert with_rest[0] == pytest.approx(oracle.base)  # never below nothing
    assert with_rest[1] == pytest.approx(without[1])


def test_oracle__promoter_counts_best_core_sites_near_the_tss():
    oracle = WorldOracle(("blood", "liver"))
    tss = 3001
    one = oracle(toy((tss - 40, "TBP")), tss)
    assert np.allclose(one, oracle.base + factor("TBP").weight)
    assert np.allclose(oracle(toy((tss - 40, "TBP"), (tss - 80, "TBP")), tss), one)
    assert np.allclose(oracle(toy((tss - 300, "TBP")), tss), oracle.base)


def test_oracle__reverse_complement_gives_the_same(small: World):
    codes, tss = small.windows(small.genes["gene_id"].tolist()[:7])
    y = small.oracle(codes, tss)
    assert np.allclose(small.oracle(reverse_complement_codes(codes), codes.shape[1] - 1 - tss), y)


def test_oracle__windows_do_not_see_each_other(small: World):
    codes, tss = small.windows(small.genes["gene_id"].tolist()[:5])
    together = small.oracle(codes, tss)
    alone = np.concatenate([small.oracle(row[None], tss) for row in codes])
    assert np.allclose(together, alone, atol=1e-12)


def test_oracle__one_dimension_is_refused():
    with pytest.raises(SchemaError, match="codes\\[None\\]"):
        inspect.unwrap(WorldOracle.sites)(WorldOracle(), encode("ACGT"))  # behind the shape checks of the tests


# ---- the truth of a grown world ----

def test_world__same_seed_same_world():
    a, b, other = (world(n_genes=13, n_chroms=2, seed=seed) for seed in (7, 7, 8))
    assert all(np.array_equal(a.genome[c], b.genome[c]) for c in a.genome)
    pd.testing.assert_frame_equal(a.expression, b.expression)
    pd.testing.assert_frame_equal(a.links, b.links)
    pd.testing.assert_frame_equal(a.variants, b.variants)
    for track, twin in zip(a.tracks, b.tracks, strict=True):
        assert all(np.array_equal(track.runs[c].value, twin.runs[c].value) for c in track.runs)
    assert not a.expression.equals(other.expression)


def test_expression_clean__is_the_oracle_of_each_genes_window(small: World):
    codes, tss = small.windows()
    assert codes.shape == (61, 2 * HALF)
    assert np.abs(small.oracle(codes, tss) - small.expression_clean.to_numpy()).max() < 1e-6


def test_links__effect_is_the_oracle_with_the_element_deleted(small: World):
    pair = ["gene_id", "name", "start", "end"]
    wide = small.links.pivot_table(index=pair, columns="cell", values="effect").reset_index()
    tss = small.genes.set_index("gene_id")["tss"]
    for row in wide.sample(37, random_state=0).to_dict("records"):
        codes, at = small.windows([row["gene_id"]])
        lo = tss[row["gene_id"]] - HALF
        drop = small.oracle.delete(codes, at, row["start"] - lo, row["end"] - lo)[0]
        assert np.allclose(drop, [row[cell] for cell in small.cells], atol=1e-6)


def test_links__scrambling_the_element_loses_the_same(small: World):
    links = small.links[(small.links["effect"] > 0.1) & (small.links["kind"] == "enhancer")]
    tss, rng = small.genes.set_index("gene_id")["tss"], np.random.default_rng(0)
    lost = []
    for row in links.sample(43, random_state=0).to_dict("records"):
        codes, at = small.windows([row["gene_id"]])
        lo = row["start"] - (tss[row["gene_id"]] - HALF)
        codes[0, lo : lo + 300] = rng.permutation(codes[0, lo : lo + 300])
        y = small.oracle(codes, at)[0, small.cells.index(row["cell"])]
        lost.append(small.expression_clean.loc[row["gene_id"], row["cell"]] - y - row["effect"])
    assert np.mean(np.abs(lost) < 0.02) > 0.9  # a shuffle makes a new site now and then


def test_links__labels_and_sums(small: World):
    links = small.links
    assert ((links["effect"] > TRUE_EFFECT) == links["label"]).all()
    assert 0.1 < links["label"].mean() < 0.6
    assert (links["distance"] <= small.oracle.max_distance).all()
    total = links.pivot_table(index="gene_id", columns="cell", values="effect", aggfunc="sum")
    total = total.loc[small.expression_clean.index, list(small.cells)] + small.oracle.base
    assert np.abs(total - small.expression_clean).to_numpy().max() < 0.05  # elements add up, but for shared sites


def test_elements__decoys_are_open_and_do_nothing(small: World):
    elements = small.elements
    check_intervals(elements, small.chrom_sizes)
    assert set(elements["kind"]) == set(ELEMENT_KINDS)
    counts = elements["kind"].value_counts()
    decoys = counts["decoy_open"] + counts["decoy_poised"]
    assert 0.6 < decoys / counts["enhancer"] < 1.5
    openness = elements[[f"openness_{c}" for c in small.cells]].max(axis=1)
    mean = openness.groupby(elements["kind"]).mean()
    assert mean["decoy_open"] > mean["enhancer"] - 0.02
    assert mean["decoy_poised"] > mean["enhancer"] - 0.05
    assert mean["decoy_closed"] == 0
    assert small.links.loc[small.links["kind"].str.startswith("decoy"), "effect"].abs().max() <= TRUE_EFFECT
    assert 0.3 < elements.loc[elements["kind"].isin(["decoy_open", "decoy_poised"]), "acetylated"].mean() < 0.7


def test_elements__closed_decoys_hold_activators(small: World):
    closed = small.elements[small.elements["kind"] == "decoy_closed"]
    activators = [i for i, f in enumerate(small.motifs) if f.role == "activator"]
    sites = [small.oracle.sites(small.genome[c][None, s:e])["factor"].isin(activators).sum()
             for c, s, e in zip(closed["chrom"], closed["start"], closed["end"], strict=True)]
    assert np.mean(sites) > 2


def test_world__cells_differ(small: World):
    r = small.expression_clean.corr().to_numpy()[np.triu_indices(3, 1)]
    assert r.max() < 0.9
    activity = small.elements.loc[small.elements["kind"] == "enhancer", [f"activity_{c}" for c in small.cells]]
    assert activity.std(axis=1).mean() > 0.05


def test_noise_ceiling__matches_monte_carlo():
    noise = 0.31
    w = world(n_genes=101, n_chroms=2, seed=2, noise=noise)
    rng = np.random.default_rng(0)
    for cell in w.cells:
        clean = w.expression_clean[cell].to_numpy()
        r = [pearsonr(clean, clean + rng.normal(0, noise, len(clean)))[0] for _ in range(101)]
        assert w.noise_ceiling[cell] == pytest.approx(np.mean(r), abs=0.01)
    left = (w.expression - w.expression_clean).to_numpy()
    assert left.std() == pytest.approx(noise, abs=0.03)


def test_world__without_noise_measures_the_truth():
    w = world(n_genes=11, n_chroms=2, cells=("muscle", "blood"), seed=3, noise=0.0)
    pd.testing.assert_frame_equal(w.expression, w.expression_clean)
    assert set(w.noise_ceiling.values()) == {1.0}


def test_variants__effects_are_the_oracles(small: World):
    variants = small.variants
    tss = small.genes.set_index("gene_id")["tss"]
    for row in variants.sample(41, random_state=1).to_dict("records"):
        codes, at = small.windows([row["gene_id"]])
        pos = row["pos"] - (tss[row["gene_id"]] - HALF)
        assert codes[0, pos] == encode(row["ref"])[0]
        codes[0, pos] = encode(row["alt"])[0]
        effect = small.expression_clean.loc[row["gene_id"]].to_numpy() - small.oracle(codes, at)[0]
        assert np.allclose(effect, [row[f"effect_{c}"] for c in small.cells], atol=1e-6)
    effects = variants[[f"effect_{c}" for c in small.cells]].abs().max(axis=1)
    assert (effects[variants["kind"] == "neutral"] == 0).all()
    assert (effects[variants["kind"] == "breaking"] > TRUE_EFFECT).mean() > 0.5
    assert (variants["ref"] != variants["alt"]).all()


def test_genome__has_gc_domains(small: World):
    window = 10_007
    shares = np.concatenate([np.isin(c[: len(c) // window * window].reshape(-1, window), (1, 2)).mean(axis=1)
                             for c in small.genome.values()])
    chance = np.sqrt(0.25 / window)
    assert shares.std() > 5 * chance
    assert 0.3 < shares.min() < shares.max() < 0.65
    assert all(codes.dtype == np.uint8 and codes.max() == 3 for codes in small.genome.values())


def test_genome__chance_pioneers_are_rare(small: World):
    planted = small.elements["kind"].isin(["enhancer", "decoy_open", "decoy_poised"]).sum()
    expected = 61 * 4.7
    assert planted < 1.15 * expected


def test_tracks__peaks_stand_where_the_genome_is_open(small: World):
    units = {track.name: track for track in small.tracks}
    assert list(units) == [f"{assay}_{c}" for assay in ("atac", "h3k27ac") for c in small.cells]
    dense = {}
    for name, track in units.items():
        for chrom, runs in track.runs.items():
            bins = np.zeros(-(-small.chrom_sizes[chrom] // SIGNAL_BIN))
            for start, end, value in zip(*runs, strict=True):
                bins[start // SIGNAL_BIN : -(-end // SIGNAL_BIN)] = value
            dense[name, chrom] = bins
    elements = small.elements
    center = ((elements["start"] + elements["end"]) // 2 // SIGNAL_BIN).to_numpy()
    for cell in small.cells:
        atac = np.array([dense[f"atac_{cell}", c][i] for c, i in zip(elements["chrom"], center, strict=True)])
        mark = np.array([dense[f"h3k27ac_{cell}", c][i - 15 : i + 16].mean()
                         for c, i in zip(elements["chrom"], center, strict=True)])
        assert pearsonr(atac, elements[f"openness_{cell}"])[0] > 0.7
        enhancers = (elements["kind"] == "enhancer").to_numpy()
        assert pearsonr(mark[enhancers], elements.loc[enhancers, f"activity_{cell}"])[0] > 0.5
        background = np.median(np.concatenate([dense[f"atac_{cell}", c] for c in small.genome]))
        assert background <= 1
        decoy = elements["kind"].isin(["decoy_open", "decoy_poised"]).to_numpy()
        marked = elements["acetylated"].to_numpy()
        assert mark[decoy & marked].mean() > 2 * mark[decoy & ~marked].mean()


def test_write__files_give_the_world_back(small: World, tmp_path):
    files = small.write(tmp_path / "world")
    assert all(path.is_file() for path in files.values())
    genome = Genome(files["genome"])
    assert genome.chrom_sizes == small.chrom_sizes
    assert all(np.array_equal(genome.codes(c), small.genome[c]) for c in small.genome)
    genes = read_genes(files["genes"])
    pd.testing.assert_frame_equal(genes[small.genes.columns.tolist()], small.genes, check_dtype=False)
    expression = read_expression(files["expression"])
    assert np.allclose(expression.loc[small.expression.index, list(small.cells)], small.expression, atol=1e-5)
    track = small.tracks[1]
    back = read_bigwig(files[track.name])
    for chrom, runs in track.runs.items():
        assert all(np.array_equal(a, b) for a, b in zip(runs, back.runs[chrom], strict=True))
    bed = read_bed(files["elements"])
    assert bed[["chrom", "start", "end", "name"]].equals(small.elements[["chrom", "start", "end", "name"]])
    vcf = read_vcf(files["variants"]).set_index("name")
    mine = small.variants.set_index("name")
    assert vcf.loc[mine.index, ["chrom", "pos", "ref", "alt"]].equals(mine[["chrom", "pos", "ref", "alt"]])
    links = pd.read_csv(files["links"], sep="\t")
    assert np.allclose(links["effect"], small.links["effect"])
    truth = json.loads(files["truth"].read_text())
    assert truth["noise_ceiling"] == pytest.approx(small.noise_ceiling)
    assert truth["law"]["contact_scale"] == small.oracle.contact_scale
    assert truth["provenance"]["seed"] == small.seed


# ---- what is refused ----

def test_world__wrong_arguments_are_named():
    with pytest.raises(UnknownNameError, match="did you mean 'liver'"):
        world(n_genes=5, n_chroms=1, cells=("livr", "blood", "neuron"))
    with pytest.raises(ValueError, match="n_chroms=7"):
        world(n_genes=5, n_chroms=7)
    with pytest.raises(ValueError, match="noise"):
        world(n_genes=5, n_chroms=1, noise=-0.1)


def test_windows__unknown_gene_and_off_end(small: World):
    with pytest.raises(UnknownNameError, match="gene9999"):
        small.windows(["gene9999"])
    codes, tss = small.windows(["gene0001"], half=60_013)
    off = 60_013 - int(small.genes.loc[0, "tss"])
    assert off > 0
    assert (codes[0, :off] == N).all()
    assert np.array_equal(codes[0, off : off + 101], small.genome["chr1"][:101])
    assert tss == 60_013
