"""Contact by distance and from maps: formulas, balancing, repair of the diagonal, genes that cannot be read."""

import numpy as np
import pytest
from scipy import sparse

from ciscribe.errors import InputError, SchemaError
from ciscribe.io.contacts import Contacts
from ciscribe.links.contact import (
    balance,
    contact_map,
    fit_power_law,
    pair_contact,
    power_law,
    reference_power_law,
)
from reference.abc_by_formula import repaired


def symmetric(upper):
    return upper.toarray() + np.triu(upper.toarray(), 1).T


def visible_map(n, seed=0):
    """Counts of a map whose truth is a power law seen through bins of different visibility."""
    rng = np.random.default_rng(seed)
    i = np.arange(n)
    truth = 1e6 * (np.abs(i[:, None] - i) + 1.0) ** -1.1
    seen = rng.uniform(0.3, 3.0, n)
    return truth, seen, truth * seen[:, None] * seen


def test_power_law_is_flat_below_5_kb_and_falls_by_its_exponent():
    near = power_law(np.array([0.0, 17.0, 5000.0]))
    assert np.ptp(near) == 0
    far = power_law(np.array([1e4 - 1, 1e5 - 1]), gamma=1.3, scale=2.0)
    np.testing.assert_allclose(np.log(far[0] / far[1]) / np.log(10), 1.3)
    np.testing.assert_allclose(reference_power_law(np.array([6399.0])), 0.099597, atol=5e-7)  # published table


def test_balancing_undoes_the_visibility_of_bins():
    truth, _, counts = visible_map(37)
    got = symmetric(balance(sparse.csr_array(np.triu(counts)), tolerance=1e-10))
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-8)
    even = symmetric(balance(sparse.csr_array(np.triu(truth)), tolerance=1e-10))
    np.testing.assert_allclose(got, even, rtol=1e-7)  # the answer does not depend on who sees what


def test_bins_that_meet_too_few_are_left_out_of_balancing():
    _, _, counts = visible_map(29)
    counts[5] = counts[:, 5] = 0
    counts[5, 5] = counts[5, 6] = counts[6, 5] = 4
    got = symmetric(balance(sparse.csr_array(np.triu(counts)), min_pairs=3))
    assert not got[5].any()
    np.testing.assert_allclose(np.delete(got, 5, axis=0).sum(axis=1), 1, atol=1e-4)


def test_the_map_is_what_the_slow_twin_makes():
    rng = np.random.default_rng(1)
    upper = np.triu(rng.random((23, 23)) * (rng.random((23, 23)) < 0.5))
    upper[3, 8] = np.nan
    dense = upper + np.triu(upper, 1).T
    contacts = Contacts.of({"chr7": dense}, 5000, balanced=True)
    kept = contacts.matrix("chr7").copy()
    np.testing.assert_allclose(symmetric(contact_map(contacts, "chr7")), repaired(dense), rtol=1e-6)
    np.testing.assert_array_equal(contacts.matrix("chr7").data, kept.data)  # unharmed, NaN included


def test_a_map_without_contacts_points_to_the_power_law():
    contacts = Contacts.of({"chr7": np.zeros((11, 11))}, 5000)
    with pytest.raises(SchemaError, match=r"all 0.*power law"):
        contact_map(contacts, "chr7")
    with pytest.raises(InputError, match="no chromosome 'chr8'"):
        contact_map(contacts, "chr8")


def test_a_gene_whose_promoter_cannot_be_read_takes_the_power_law():
    dense = np.zeros((7, 7))
    dense[0, 1] = 0.2
    dense[3, 4] = 0.005
    hic = sparse.csr_array(dense)
    got = pair_contact(np.array([6000.0, 100.0, 7000.0, 100.0]), hic=hic, bin_element=np.array([1, 1, 4, 4]),
                       bin_tss=np.array([0, 1, 3, 3]), gene=np.array([0, 0, 1, 1]),
                       is_self_promoter=np.array([True, False, True, False]), source="average")
    assert got.source.tolist() == ["average", "average", "powerlaw", "powerlaw"]
    assert got.hic[0] == 0.2
    np.testing.assert_allclose(got.hic[2:], power_law(np.array([7000.0, 100.0])))
    d = np.array([6000.0])
    np.testing.assert_allclose(got.contact[0], 0.2 * reference_power_law(d) / power_law(d) + power_law(d))


def test_a_gene_without_a_promoter_element_keeps_the_map():
    got = pair_contact(np.array([9000.0]), hic=sparse.csr_array((5, 5)), bin_element=np.array([3]),
                       bin_tss=np.array([1]), gene=np.array([0]), is_self_promoter=np.array([False]))
    assert got.source.tolist() == ["hic"]
    np.testing.assert_allclose(got.contact, power_law(np.array([9000.0])))  # nothing read: the pseudocount alone


def test_a_map_needs_the_bins_of_each_pair():
    with pytest.raises(SchemaError, match="bin_element"):
        pair_contact(np.array([9000.0]), hic=sparse.csr_array((5, 5)))


def test_the_fitted_power_law_is_the_planted_one():
    n, resolution, gamma = 211, 5000, 0.93
    d = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) * resolution
    contacts = Contacts.of({"chr7": np.exp(3.0 - gamma * np.log(d + 1.0))}, resolution, balanced=True)
    fitted, scale = fit_power_law(contacts)
    assert fitted == pytest.approx(gamma, abs=1e-5)
    ratio = contact_map(contacts, "chr7").toarray()[3, 13] / power_law(np.array([50_000.0]), gamma=fitted, scale=scale)
    assert ratio[0] == pytest.approx(1, abs=1e-4)
    with pytest.raises(SchemaError, match="three distances"):
        fit_power_law(contacts, max_distance=15_000)
