import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from synthetic_run import CELLS, WORM_STAGES, make_cards, make_elements, make_locus, make_metrics, make_report

from ciscribe import report
from ciscribe.errors import SchemaError
from ciscribe.plot.style import COLORS

EVIL = "<script>alert('1')</script>\"&"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that are not closed in order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    return make_report(tmp_path_factory.mktemp("report") / "report.html").read_text(encoding="utf-8")


def test_build_report__loads_nothing(html):
    page = Page(html)
    loads = [
        (k, v)
        for k, v in page.attributes
        if k in ("src", "href", "srcset", "data", "poster", "action")
        and not v.startswith(("#", "data:", "https://doi.org/", "https://arxiv.org/"))
    ]
    assert loads == []
    assert not {"script", "iframe", "object", "embed", "img"} & set(page.tags)
    assert not re.search(r"@import|url\((?!#)", html)
    assert "default-src 'none'" in html
    assert page.tags.count("link") == 1  # the empty icon, which stops browsers from asking for one


def test_build_report__ids_are_unique_and_references_resolve(html):
    page = Page(html)
    ids = [v for k, v in page.attributes if k == "id"]
    assert len(ids) == len(set(ids))
    assert {v[1:] for k, v in page.attributes if k == "href" and v.startswith("#")} <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(ids)


def test_build_report__every_color_has_a_light_and_a_dark_value(html):
    for name, shade in COLORS.items():
        assert f"--{name}: {shade.light};" in html
        assert f"--{name}: {shade.dark};" in html
    assert set(re.findall(r"var\(--(\w+)\)", html)) <= set(COLORS) | {"page", "wash", "link", "sans", "mono"}


def test_build_report__same_input_same_bytes(tmp_path):
    first, second = (make_report(tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_build_report__escapes_everything_that_came_from_outside(tmp_path):
    cells = ("liver", EVIL)
    html = make_report(
        tmp_path / "r.html",
        cells,
        title=EVIL,
        locus_list=[make_locus(cells, gene_name=EVIL)],
        element_table=make_elements(7, gene=EVIL),
    ).read_text()
    assert "<script" not in html
    assert "script" not in Page(html).tags
    assert "&lt;script&gt;alert" in html


def test_build_report__says_what_made_it(html):
    text = " ".join(Page(html).text)
    for part in (
        "ciscribe run configs/worm.yaml",
        "2025-01-02T03:04:05+00:00",
        "torch 2.13.0",
        "sha256:abab",
        "(not known)",
    ):
        assert part in text


def test_build_report__cards_link_their_papers(html):
    assert '<a href="https://doi.org/10.1186/gb-2008-9-9-r137" rel="noreferrer">' in html
    assert '<a href="https://arxiv.org/abs/2502.13991"' in html
    text = " ".join(Page(html).text)
    for card in make_cards():
        assert card.summary in text
    assert "Bins of 128 bp." in text
    assert "196,608 bp" in text


@pytest.mark.parametrize("targets", [("K562",), CELLS, WORM_STAGES, tuple(f"tissue {i}" for i in range(11))])
def test_build_report__any_number_of_targets(tmp_path, targets):
    path = make_report(tmp_path / "r.html", targets)
    text = " ".join(Page(path.read_text()).text)
    assert all(t in text for t in targets)
    assert path.stat().st_size < 1_500_000


def test_build_report__worm_sized_report_stays_under_3_megabytes(tmp_path):
    loci = [make_locus(WORM_STAGES, width=196_608, n_genes=47, n_elements=37, seed=s) for s in (2, 3, 5, 7)]
    assert make_report(tmp_path / "r.html", WORM_STAGES, n=3019, locus_list=loci).stat().st_size < 3_000_000


def test_build_report__failed_write_keeps_the_old_report(tmp_path):
    path = make_report(tmp_path / "r.html")
    old = path.read_bytes()
    bad = report.Section("x", "provenance", "x.", "")
    with pytest.raises(SchemaError, match="used twice: provenance"):
        report.build_report(path, title="t", subtitle="s", summary=[], sections=[bad], cards=[], provenance={})
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_build_report__empty_run_is_a_page(tmp_path):
    path = tmp_path / "r.html"
    report.build_report(path, title="t", subtitle="s", summary=[], sections=[None, None], cards=[], provenance={})
    assert Page(path.read_text()).tags.count("section") == 1


def test_build_report__absent_sections_leave_no_trace(tmp_path, html):
    anchors = {"data", "metrics", "accuracy", "loci", "elements", "benchmark", "truncation", "training"}
    assert all(f'<section id="{a}">' in html and f'href="#{a}"' in html for a in anchors)
    parts = {a: report.Section(a.title(), a, "What it means.", "") for a in sorted(anchors)}
    for gone in parts:
        path = tmp_path / "r.html"
        report.build_report(
            path,
            title="t",
            subtitle="s",
            summary=[],
            sections=list((parts | {gone: None}).values()),
            cards=[],
            provenance={},
        )
        page = path.read_text()
        assert f'id="{gone}"' not in page
        assert f'href="#{gone}"' not in page
        assert page.count("What it means.") == len(parts) - 1


def test_sections__are_none_without_data():
    assert report.data_section(None) is None
    assert report.metrics_section(None) is None
    assert report.accuracy_section(None) is None
    assert report.training_section(None) is None
    assert report.training_section(pd.DataFrame()) is None
    assert report.truncation_section(make_metrics(truncation=False)) is None
    assert report.loci_section([]) is None
    assert report.elements_section(None) is None
    assert report.benchmark_section(None) is None
