import re

import pytest
from synthetic_run import make_benchmark, make_elements, make_locus, make_metrics

from ciscribe.errors import SchemaError
from ciscribe.report import benchmark_section, elements_section, loci_section, metrics_section
from ciscribe.report.markup import interval_html, number_text, table_html


def cells_of(html):
    return [re.sub("<[^>]+>", "", c) for c in re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", html)]


def test_metrics_section__values_intervals_and_ceiling():
    html = metrics_section(make_metrics()).html
    cells = cells_of(html)
    assert "0.770 0.757–0.783" in cells
    assert cells[cells.index("noise ceiling") + 1] == "0.920"
    assert "0.610 0.595–0.625" in cells  # across targets


def test_metrics_section__without_ceiling_and_across_target():
    html = metrics_section(make_metrics(("K562",), ceiling=False, across=False)).html
    assert "ceiling" not in html
    assert "Across targets" not in html


def test_metrics_section__null_values_become_dashes():
    metrics = make_metrics()
    metrics["models"]["gbm_signals"]["mean"] = {"pearson": {"value": None, "low": None, "high": None}}
    cells = cells_of(metrics_section(metrics).html)
    assert cells[cells.index("GBM, signals") + 1] == "–"


def test_elements_section__largest_effects_first_with_signs():
    table = make_elements(5).assign(effect=[0.1, -0.9, 0.4, 0.0, -0.2])
    cells = cells_of(elements_section(table, most=3).html)
    assert cells[6 + 5 :: 6] == ["−0.90", "+0.40", "−0.20"]


def test_elements_section__positions_are_1_based_for_people():
    table = make_elements(1).assign(start=999, end=1_500)
    assert "chrIV:1,000–1,500" in elements_section(table).html


def test_elements_section__empty_table_says_so():
    assert "No element was called" in elements_section(make_elements(0)).html


def test_elements_section__missing_column_is_named():
    with pytest.raises(SchemaError, match="missing: effect"):
        elements_section(make_elements(3).drop(columns="effect"))


def test_loci_section__guide_names_the_truth_only_where_there_is_one():
    with_truth, without = (loci_section([make_locus(truth=t)]).html for t in (True, False))
    assert "<dt>True elements</dt>" in with_truth
    assert "<dt>True elements</dt>" not in without


def test_loci_section__no_called_element():
    assert "none in this region" in loci_section([make_locus(n_elements=0)]).html


def test_benchmark_section__ranked_and_main_method_in_bold():
    table, curves, budgets = make_benchmark()
    html = benchmark_section(table.iloc[::-1], curves, budgets, main="macs3").html
    rows = re.findall(r"<tr([^>]*)><td>([^<]*)", html)
    assert [name for _, name in rows] == ["seq2exp", "macs3", "signal top bins", "distance to tss", "random"]
    assert [name for attribute, name in rows if "strong" in attribute] == ["macs3"]


def test_benchmark_section__parts_stand_alone():
    table, _, budgets = make_benchmark()
    assert "<svg" not in benchmark_section(table).html
    assert "<table" not in benchmark_section(None, None, budgets).html


def test_table_html__escapes_and_aligns():
    html = table_html(("Gene", "n"), [("<b>&", "3")])
    assert '<td>&lt;b&gt;&amp;</td><td class="num">3</td>' in html


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (float("nan"), "–"), (-0.5, "−0.500"), (2, "2.000")])
def test_number_text__minus_and_missing(value, text):
    assert number_text(value) == text


def test_interval_html__without_bounds_is_the_value_alone():
    assert interval_html({"value": 0.5, "low": None, "high": None}) == "0.500"
    assert interval_html(None) == "–"
