"""Contacts of genes from HDF5: every base where it belongs, and files that do not fit say so."""

import sys

import h5py
import numpy as np
import pytest

import published_layout as layout
from ciscribe.errors import DependencyError, InputError
from ciscribe.io.gene_contacts import GeneContacts

GENES = layout.make_genes().rename(columns={"chr": "chrom", "symbol": "gene_id"})


@pytest.fixture
def folder(tmp_path):
    layout.write_hic(tmp_path, layout.make_genes())
    return tmp_path


def runs_of(contacts, genes, half_width):
    return {row: runs for row, runs, _ in contacts.read(genes, half_width)}


def spread(runs, tss, half):
    """One number a base of the window."""
    out = np.zeros(2 * half)
    for start, end, value in zip(*runs, strict=True):
        out[start - tss + half:end - tss + half] = value
    return out


def test_read__gives_every_gene_what_its_file_holds(folder):
    mixed = GENES.sample(frac=1, random_state=0)
    contacts = GeneContacts(f"{folder}/hic_feat_{{chrom}}.h5")
    found = list(contacts.read(mixed, 100))
    assert sorted(row for row, *_ in found) == list(range(42))
    for row, runs, missing in found:
        assert missing == 0
        gene = mixed.iloc[row]
        expected = layout.contact(gene["chrom"], int(gene["tss"]))
        np.testing.assert_allclose(spread(runs, int(gene["tss"]), layout.HALF), expected, rtol=1e-6)
        assert len(runs.start) <= 2 * layout.HALF // layout.BIN + 2
        assert runs.start.min() >= 0
    assert contacts.name == "hic"


def test_read__one_file_of_all_chromosomes(folder):
    with h5py.File(folder / "all.h5", "w") as file:
        for chrom in layout.SIZES:
            with h5py.File(folder / f"hic_feat_{chrom}.h5") as part:
                for key in part:
                    part.copy(key, file)
    apart = runs_of(GeneContacts(f"{folder}/hic_feat_{{chrom}}.h5"), GENES, 7)
    together = runs_of(GeneContacts(f"{folder}/all.h5"), GENES, 7)
    for row, runs in apart.items():
        assert all(np.array_equal(a, b) for a, b in zip(runs, together[row], strict=True))
    with pytest.raises(InputError, match=r"have no chromosome 'chrY', on which 42 genes lie; did you mean 'chr.'"):
        list(GeneContacts(f"{folder}/all.h5").read(GENES.assign(chrom="chrY"), 7))


def test_read__nan_is_0_up_to_the_share_that_is_allowed(folder):
    key = f"chr3_{GENES.loc[GENES['chrom'] == 'chr3', 'tss'].iloc[1]}"
    with h5py.File(folder / "hic_feat_chr3.h5", "a") as file:
        values = file[key][:]
        values[:140] = np.nan
        del file[key]
        file[key] = values
    own = GENES[GENES["chrom"] == "chr3"]
    found = {row: (runs, share) for row, runs, share in GeneContacts(f"{folder}/hic_feat_{{chrom}}.h5").read(own, 100)}
    assert [share for _, share in found.values()] == [0, 140 / 262, 0, 0, 0]
    runs, _ = found[1]
    np.testing.assert_allclose(spread(runs, int(own["tss"].iloc[1]), layout.HALF), np.nan_to_num(values), rtol=1e-6)
    strict = GeneContacts(f"{folder}/hic_feat_{{chrom}}.h5", max_missing=0.1)
    with pytest.raises(InputError, match=f"1 of 5 genes are NaN on more than half of their window; first: {key}"):
        list(strict.read(own, 100))


def test_read__a_gene_without_contacts_has_no_runs(folder):
    own = GENES[GENES["chrom"] == "chr3"].iloc[:1]
    key = f"chr3_{own['tss'].iloc[0]}"
    with h5py.File(folder / "hic_feat_chr3.h5", "a") as file:
        del file[key]
        file[key] = np.zeros(2 * layout.HALF)
    assert [len(column) for column in runs_of(GeneContacts(f"{folder}/hic_feat_chr3.h5"), own, 11)[0]] == [0, 0, 0]


@pytest.mark.parametrize(("array", "says"), [
    (np.ones(263), r"must have an even number of bases; got shape \(263,\)"),
    (np.ones((7, 11)), r"must have an even number of bases; got shape \(7, 11\)"),
    (np.full(262, np.inf), "262 of 262 values are negative or infinite; first: inf at base 0"),
])
def test_read__arrays_of_no_use(folder, array, says):
    own = GENES[GENES["chrom"] == "chr3"].iloc[:1]
    key = f"chr3_{own['tss'].iloc[0]}"
    with h5py.File(folder / "hic_feat_chr3.h5", "a") as file:
        del file[key]
        file[key] = array
    with pytest.raises(InputError, match=says):
        list(GeneContacts(f"{folder}/hic_feat_{{chrom}}.h5").read(own, 11))


def test_read__another_tss_is_named_with_the_nearest_key(folder):
    own = GENES[GENES["chrom"] == "chr2"].assign(tss=lambda t: t["tss"] + 1)
    with pytest.raises(InputError, match=r"lack 7 of 7 genes; first: ENSG00000000019 as 'chr2_30'; an array is called "
                                         r"chrom_tss, and the TSS must be that of the gene table; did you mean 'chr2_"):
        list(GeneContacts(f"{folder}/hic_feat_{{chrom}}.h5").read(own, 11))


def test_read__without_h5py(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DependencyError, match=r"reading contacts from HDF5 needs the package 'h5py'.*ciscribe\[hdf5\]"):
        list(GeneContacts(f"{folder}/hic_feat_{{chrom}}.h5").read(GENES, 11))
