"""Each numbered rule of docs/spec.md is enforced, by a message with the count and the first offender."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ciscribe import schema
from ciscribe.errors import SchemaError

SIZES = {"chr1": 1009, "chr2": 499}
SPEC = (Path(__file__).resolve().parents[2] / "docs" / "spec.md").read_text(encoding="utf-8")


def one_hot() -> np.ndarray:
    X = np.zeros((3, 4, 37), np.int8)
    X[:, 2] = 1
    X[1, :, 5] = 0  # an N
    return X


def intervals(**changes) -> pd.DataFrame:
    table = pd.DataFrame({"chrom": ["chr1", "chr2", "chr1"], "start": [0, 11, 503], "end": [7, 499, 1009],
                          "strand": ["+", "-", "."]})
    return table.assign(**changes)


def genes(**changes) -> pd.DataFrame:
    return intervals(gene_id=["a", "b", "c"], gene_name=["A", "B", "C"], tss=[0, 498, 503]).assign(**changes)


def elements(**changes) -> pd.DataFrame:
    return intervals(gene_id="a", cell="K", score=[0.5, 0.25, 1.0], score_sd=np.nan, effect=np.nan,
                     evidence="mask").assign(**changes)


def links(**changes) -> pd.DataFrame:
    return intervals(gene_id="a", cell="K", distance=[3, 5, 7], score=0.5).assign(**changes)


def variants(**changes) -> pd.DataFrame:
    return pd.DataFrame({"chrom": ["chr1", "chr2"], "pos": [0, 13], "ref": ["A", "CT"],
                         "alt": ["G", "C"]}).assign(**changes)


def expression(values=((0.0, 1.5), (2.0, 3.0), (5.0, 0.0)), ids=("a", "b", "c"),
               name="gene_id") -> pd.DataFrame:
    return pd.DataFrame(values, columns=["K", "H"], index=pd.Index(ids, name=name))


def put(array, at, value):
    array = array.astype(float)
    array[at] = value
    return array


# check, a good object, and for every numbered rule of the spec bad ones with what the message must say.
def motif(name, ppm) -> schema.Motif:
    return schema.Motif(name, np.array(ppm, dtype=np.float64))


CASES = {
    "check_one_hot": (one_hot(), {
        1: [(np.zeros((4, 37)), r"\(4, 37\)"),
            (np.zeros((3, 37, 4)), r"got shape \(3, 37, 4\); if channels are last")],
        2: [(put(one_hot(), (2, 0, 11), 0.5), r"1 of 111 positions .* first: sequence 2, position 11"),
            (put(one_hot(), (2, 0, 11), np.nan), r"1 of 111 positions .* first: sequence 2, position 11")],
        3: [(put(one_hot(), (2, 0, slice(11, 13)), 1),
             r"2 of 111 .* first: sequence 2, position 11 = \[1.0, 0.0, 1.0")],
    }, {}),
    "check_signals": (np.zeros((3, 5, 37)), {
        1: [(np.zeros((5, 37)), r"\(5, 37\)")],
        2: [(np.zeros((3, 5, 36)), "36 bins of 2 bp = 72 bp, but the sequence has 74 bp")],
        3: [(put(np.zeros((3, 5, 37)), (1, 2, slice(3, 5)), np.nan),
             r"2 of 555 values .* first: sequence 1, track 2, bin 3"),
            (put(np.zeros((3, 5, 37)), (1, 2, 3), -np.inf), "1 of 555 values")],
    }, {"length": 74, "resolution": 2}),
    "check_intervals": (intervals(), {
        1: [(intervals().drop(columns="end"), "missing: end; got: chrom, start, strand")],
        2: [(intervals(start=[0.0, 11.0, 503.0]), "start of intervals .* float64"),
            (intervals(end=pd.array([7, None, None], dtype="Int64")),
             "2 of 3 intervals have no end; first: row 1")],
        3: [(intervals(chrom=["chr1", None, "chr1"]), "1 of 3 intervals have no chromosome; first: row 1")],
        4: [(intervals(start=[0, -11, -1]), "2 of 3 intervals start before 0; first: row 1 chr2:-11-499")],
        5: [(intervals(end=[7, 499, 503]), "1 of 3 intervals end at or before .* first: row 2 chr1:503-503")],
        6: [(intervals(strand=["+", "-", "x"]), r"1 of 3 .* strand other than \+ - \.; first: row 2")],
        7: [(intervals(chrom=["chr1", "2", "1"]),
             r"2 of 3 .* genome lacks \(chr1, chr2\); first: row 1 2:11-499")],
        8: [(intervals(end=[7, 500, 1009]), "1 of 3 intervals run off the end .* first: row 1 chr2:11-500")],
    }, {"chrom_sizes": SIZES}),
    "check_genes": (genes(), {
        1: [(genes().drop(columns=["tss", "gene_name"]), "missing: gene_name, tss")],
        2: [(genes(start=[0, -1, 503]), "1 of 3 genes start before 0; first: row 1 chr2:-1-499 b")],
        3: [(genes(gene_id=["a", "", None]), "2 of 3 genes have no gene_id; first: row 1")],
        4: [(genes(gene_id=["a", "b", "a"]), "1 of 3 genes repeat a gene_id; first: row 2 .* a")],
        5: [(genes(tss=[0.5, 1, 2]), "tss of genes .* float64")],
        6: [(genes(tss=[0, -1, 2]), "1 of 3 genes have a TSS before 0; first: row 1")],
        7: [(genes(tss=[0, 499, 2]), "1 of 3 genes have a TSS off the end .* first: row 1")],
    }, {"chrom_sizes": SIZES}),
    "check_elements": (elements(), {
        1: [(elements().drop(columns="effect"), "elements need the columns .* missing: effect")],
        2: [(elements(end=[0, 11, 1009]), "2 of 3 elements end at or before .* first: row 0")],
        3: [(elements(score=[1, np.nan, np.inf]),
             "2 of 3 elements have no finite score; first: row 1 chr2:11-499 a")],
    }, {}),
    "check_links": (links(), {
        1: [(links().drop(columns="distance"), "links need the columns .* missing: distance")],
        2: [(links(end=[0, 499, 1009]), "1 of 3 links end at or before")],
        3: [(links(gene_id=["a", None, "c"]), "1 of 3 links have no gene_id; first: row 1")],
        4: [(links(chrom="chr1", start=3, end=[7, 7, 11]),
             "1 of 3 links repeat a pair; first: row 1 chr1:3-7 a")],
    }, {}),
    "check_variants": (variants(), {
        1: [(variants().drop(columns="alt"), "missing: alt")],
        2: [(variants(pos=[1.0, 2.0]), "pos of variants .* float64")],
        3: [(variants(chrom=["chr1", None]), "1 of 2 variants have no chromosome; first: row 1")],
        4: [(variants(pos=[3, -1]), "1 of 2 variants lie before position 0; first: row 1 chr2:-1")],
        5: [(variants(ref=["A", "c"]), "1 of 2 variants have .* ACGTN as ref; first: row 1 chr2:13"),
            (variants(alt=["", None]), "2 of 2 variants have .* ACGTN as alt")],
    }, {}),
    "check_expression": (expression(), {
        1: [(expression(name=None), "indexed by gene_id; got index None")],
        2: [(expression(ids=("a", "b", "b")), "1 of 3 expression rows repeat a gene_id; first: b")],
        3: [(expression(((1.0, "x"), (1.0, "y"), (1.0, "z"))), "column H of expression must be numbers")],
        4: [(expression(((0, 1), (np.nan, 1), (1, np.inf))),
             "2 of 6 .* missing or infinite; first: gene b, column K")],
        5: [(expression(((0, 1), (2, -1), (1, 1))), "1 of 6 .* negative; first: gene b, column H = -1.0")],
    }, {}),
}
MOTIF = schema.Motif("m", np.full((4, 5), 0.25), "by hand")
CASES["check_motifs"] = ([MOTIF, motif("n", [[1.0], [0], [0], [0]])], {
    1: [([MOTIF, motif(" ", MOTIF.ppm)], "motif 1 of 2 has no name"),
        ([MOTIF, MOTIF], "motif 1 of 2 repeats the name of an earlier one: 'm'")],
    2: [([motif("n", MOTIF.ppm.T)], r"ppm of motif n must be float64 \(4, W\).* \(5, 4\); transpose it"),
        ([motif("n", np.zeros((4, 0)))], r"float64 \(4, 0\)"),
        ([schema.Motif("n", np.full((4, 5), 0.25, np.float32))], "got float32")],
    3: [([motif("n", [[0.5, 1.5], [0.5, -0.5], [0, 0], [0, 0]])], "1 of 2 columns of motif n .* first: column 1"),
        ([motif("n", [[np.nan], [1], [0], [0]])], "1 of 1 columns of motif n")],
    4: [([MOTIF, motif("n", MOTIF.ppm * 1.1)], "5 of 5 columns of motif n .* sum to 1; first: column 0")],
}, {})


def hits(**changes) -> pd.DataFrame:
    return intervals(motif=["a", "b", "a"], score=[1.5, -2.0, 0.0], p_value=[0.0, np.nan, 1.0], region=[0, 2, 2],
                     **{"strand": ["+", "-", "+"]} | changes)


CASES["check_hits"] = (hits(), {
    1: [(hits().drop(columns=["motif", "region"]), "hits need the columns .* missing: motif, region")],
    2: [(hits(end=[0, 499, 1009]), "1 of 3 hits end at or before .* first: row 0")],
    3: [(hits(strand=["+", ".", "-"]), r"1 of 3 hits have a strand other than \+ -; first: row 1")],
    4: [(hits().assign(motif=["a", None, ""]), "2 of 3 hits name no motif; first: row 1 chr2:11-499")],
    5: [(hits().assign(score=[1, np.nan, np.inf]), "2 of 3 hits have no finite score; first: row 1")],
    6: [(hits().assign(p_value=[np.nan, 1.1, -0.1]), "2 of 3 hits have a p_value outside .* first: row 1")],
    7: [(hits().assign(region=[0.0, 1.0, 2.0]), "region of hits .* float64"),
        (hits().assign(region=[0, -1, 2]), "1 of 3 hits have a region before 0; first: row 1")],
}, {})
def effects(**changes) -> pd.DataFrame:
    return variants(name=".", track="K", gene_id=["a", "."], diff=[0.5, np.nan]).assign(**changes)


CASES["check_effects"] = (effects(), {
    1: [(effects().drop(columns=["track", "gene_id"]), "effects need the columns .* missing: track, gene_id")],
    2: [(effects(pos=[3, -1]), "1 of 2 variants lie before position 0; first: row 1 chr2:-1")],
    3: [(effects(track=["K", None]), "1 of 2 effects have no track; first: row 1"),
        (effects(gene_id=[None, "a"]), "1 of 2 effects have no gene_id; first: row 0")],
    4: [(effects(chrom="chr1", pos=7, ref="A", alt="G", gene_id="a"),
         "1 of 2 effects repeat a variant, track and gene; first: row 1")],
}, {})

RULES = [(check, rule, i) for check, (_, rules, _) in CASES.items()
         for rule, bad in rules.items() for i in range(len(bad))]


def spec_rules(text: str) -> dict[str, list[int]]:
    """Check named in each heading, and the numbers of its rules."""
    sections = re.split(r"^## ", text, flags=re.M)[1:]
    named = {}
    for section in sections:
        heading = section.splitlines()[0]
        for check in re.findall(r"`(check_\w+)`", heading):
            named[check] = [int(n) for n in re.findall(r"^(\d+)\. ", section, flags=re.M)]
    return named


@pytest.mark.parametrize("check", CASES)
def test_checks__pass_what_the_spec_allows(check):
    good, _, options = CASES[check]
    assert getattr(schema, check)(good, **options) is None


@pytest.mark.parametrize(("check", "rule", "i"), RULES)
def test_checks__enforce_each_rule_with_count_and_first_offender(check, rule, i):
    _, rules, options = CASES[check]
    bad, message = rules[rule][i]
    with pytest.raises(SchemaError, match=message):
        getattr(schema, check)(bad, **options)


def test_spec__names_every_check_and_only_those():
    in_schema = {name for name in vars(schema) if name.startswith("check_")}
    assert set(spec_rules(SPEC)) == in_schema


def test_spec__every_numbered_rule_has_a_case():
    assert spec_rules(SPEC) == {check: sorted(rules) for check, (_, rules, _) in CASES.items()}


def test_spec_rules__reads_headings_and_numbers():
    text = "# x\n## Toys: `check_toys`\n\n1. They are.\n2. They last.\n\n## Notes\n\n1. Nothing.\n"
    assert spec_rules(text) == {"check_toys": [1, 2]}


def test_spec__lists_the_dimension_names():
    line = SPEC.split("(`schema.DIMS`):")[1].split(".")[0]
    assert tuple(re.findall(r"`(\w+)`", line)) == schema.DIMS


def test_checks__name_the_columns_of_the_spec():
    for columns in (schema.GENE_COLUMNS, schema.ELEMENT_COLUMNS, schema.LINK_COLUMNS, schema.VARIANT_COLUMNS,
                    schema.HIT_COLUMNS, schema.EFFECT_COLUMNS):
        for column in columns:
            assert re.search(rf"\b{column}\b", SPEC), column


def test_checks__leave_their_table_alone():
    for check, (good, _, options) in CASES.items():
        before = good.copy()
        getattr(schema, check)(good, **options)
        if isinstance(good, pd.DataFrame):
            pd.testing.assert_frame_equal(good, before)
        else:
            np.testing.assert_array_equal(good, before)


def test_check_one_hot__takes_tensors_that_carry_gradients():
    X = torch.from_numpy(one_hot()).float().requires_grad_()
    schema.check_one_hot(X)
    with pytest.raises(SchemaError, match="111 of 111"):
        schema.check_one_hot(X + 1)
