import stat
import sys

import numpy as np
import pandas as pd
import pytest
from scipy.special import logsumexp
from scipy.stats import false_discovery_control, poisson

from ciscribe.elements import call_peaks, peaks
from ciscribe.errors import DependencyError, InputError, SchemaError
from ciscribe.intervals import overlap_bp
from ciscribe.io.bed import NARROWPEAK_COLUMNS, read_narrowpeak, write_narrowpeak
from ciscribe.io.tracks import Runs, Track
from ciscribe.schema import check_intervals

SIZES = {"chr1": 600_011, "chr2": 300_007}


def as_track(signal, bp=20):
    made = {}
    for chrom, x in signal.items():
        start = np.arange(len(x)) * bp
        end = np.minimum(start + bp, SIZES[chrom])
        made[chrom] = Runs(start.astype(np.int32), end.astype(np.int32), x.astype(np.float32))
    return Track("toy", made, chrom_sizes=dict(SIZES))


def noisy_track(seed=0, scale=0.25, fold=5.0, n_peaks=41):
    """Poisson counts of a background that drifts, times `scale`, with peaks of 400 bp; and where these are."""
    rng = np.random.default_rng(seed)
    signal, planted = {}, []
    for chrom, size in SIZES.items():
        n = -(-size // 20)
        rate = 8 * (1 + 0.5 * np.sin(np.arange(n) / 3000))
        for start in rng.choice(np.arange(100, n - 100, 120), n_peaks, replace=False):
            rate[start:start + 20] *= fold
            planted.append((chrom, start * 20, start * 20 + 400))
        signal[chrom] = rng.poisson(rate) * scale
    return as_track(signal), pd.DataFrame(planted, columns=["chrom", "start", "end"])


def test_call_peaks__finds_planted_peaks_and_few_others():
    track, planted = noisy_track()
    found = call_peaks(track, method="local")
    check_intervals(found, SIZES)
    assert list(found.columns) == list(NARROWPEAK_COLUMNS)
    assert found.attrs["method"] == "local"
    recall = (overlap_bp(planted, found) > 200).mean()
    false = (overlap_bp(found, planted) == 0).mean()
    assert recall > 0.95
    assert false < 0.05
    assert (found["summit"] < found["end"] - found["start"]).all()
    assert found["signal"].median() == pytest.approx(4, rel=0.4)  # fold over a background that the peak itself raises


def test_call_peaks__noise_alone_gives_almost_nothing():
    track, _ = noisy_track(fold=1.0)
    assert len(call_peaks(track, method="local")) <= 1


def test_call_peaks__does_not_depend_on_the_unit():
    (one, _), (other, _) = noisy_track(scale=1.0), noisy_track(scale=0.01)
    a, b = call_peaks(one, method="local"), call_peaks(other, method="local")
    pd.testing.assert_frame_equal(a[["chrom", "start", "end"]], b[["chrom", "start", "end"]])


def test_estimate_scale__recovers_the_counts_behind_a_signal():
    x = np.random.default_rng(0).poisson(6.0, 100_000) * 0.125
    assert peaks._estimate_scale({"c": x}, 25) == pytest.approx(8, rel=0.03)


def test_neg_log10_p__is_the_poisson_tail_for_whole_counts_and_never_overflows():
    counts, rate = np.array([3.0, 11.0, 2.0, 17.0]), np.array([0.7, 5.0, 2.5, 16.0])
    expected = -poisson.logsf(counts - 1, rate) / np.log(10)
    expected[2] = 0  # below the rate
    assert peaks._neg_log10_p(counts, rate) == pytest.approx(expected, rel=1e-9)
    far = peaks._neg_log10_p(np.array([600.0, 5000.0, 5001.0]), np.array([30.0, 30.0, 30.0]))
    assert far[0] == pytest.approx(-logsumexp(poisson.logpmf(np.arange(600, 900), 30)) / np.log(10), rel=1e-9)
    assert np.isfinite(far).all()
    assert far[2] > far[1] > far[0]


def test_neg_log10_q__is_benjamini_hochberg():
    p = np.random.default_rng(0).uniform(0, 1, 97) ** 3
    q = peaks._neg_log10_q({"a": -np.log10(p[:31]), "b": -np.log10(p[31:])})
    assert np.concatenate([q["a"], q["b"]]) == pytest.approx(-np.log10(false_discovery_control(p)))


def test_call_peaks__a_track_without_noise_works():
    x = np.zeros(-(-SIZES["chr1"] // 20))
    x[1000:1020] = 3.0
    found = call_peaks(as_track({"chr1": x}), method="local")
    assert found[["chrom", "start", "end"]].to_numpy().tolist() == [["chr1", 20_000, 20_400]]


def test_call_peaks__bad_input_gets_a_clear_error():
    track, _ = noisy_track()
    with pytest.raises(SchemaError, match=r"must cover one of chr9; it has chr1, chr2"):
        call_peaks(track, {"chr9": 1000}, method="local")
    with pytest.raises(SchemaError, match=r"1 of 2 runs of 'toy' on chr1 are not; first: chr1:20-40 = -1.0"):
        call_peaks(as_track({"chr1": np.array([1.0, -1.0])}), method="local")
    with pytest.raises(SchemaError, match="nothing to call"):
        call_peaks(as_track({"chr1": np.zeros(9)}), method="local")
    with pytest.raises(SchemaError, match="give chrom_sizes"):
        call_peaks(Track("toy", track.runs), method="local")
    with pytest.raises(ValueError, match=r"q=2\.0"):
        call_peaks(track, q=2.0, method="local")


def test_call_peaks__narrowpeak_file_keeps_them(tmp_path):
    found = call_peaks(noisy_track()[0], method="local")
    write_narrowpeak(tmp_path / "x.narrowPeak", found)
    back = read_narrowpeak(tmp_path / "x.narrowPeak")
    assert back["summit"].tolist() == found["summit"].tolist()
    assert back["p_value"].to_numpy() == pytest.approx(found["p_value"].to_numpy(), rel=1e-6)


FAKE = '''#!{python}
"""Stands in for MACS3: checks its arguments and answers in its formats."""
import pathlib, sys
command, options = sys.argv[1], sys.argv[2:]
values = dict(zip(options[::2], options[1::2]))
here = pathlib.Path(__file__).parent
if command == "bdgcmp":
    assert values["-m"] == "qpois", values
    for key in ("-t", "-c"):
        rows = [r.split() for r in open(values[key]) if not r.startswith("track")]
        (here / values[key]).write_text("\\n".join(map("\\t".join, rows)))
    pathlib.Path(values["-o"]).write_text("chr1\\t0\\t600011\\t0.5\\n")
elif command == "bdgpeakcall":
    at = options.index("--no-trackline")
    options.pop(at)
    values = dict(zip(options[::2], options[1::2]))
    assert pathlib.Path(values["-i"]).exists()
    assert abs(float(values["-c"]) - 1.30103) < 1e-4 and values["-l"] == "100" and values["-g"] == "50", values
    pathlib.Path(values["-o"]).write_text({answer!r})
{extra}
'''


def fake_macs3(tmp_path, monkeypatch, answer="", extra=""):
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "macs3"
    program.write_text(FAKE.format(python=sys.executable, answer=answer, extra=extra))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    return folder


def test_call_peaks__macs3_gets_its_files_and_its_answer_is_read(tmp_path, monkeypatch):
    answer = "chr1\t4000\t4400\tx_narrowPeak1\t163\t.\t0\t0\t0\t190\nchr2\t20\t140\tx_narrowPeak2\t27\t.\t0\t0\t0\t7\n"
    folder = fake_macs3(tmp_path, monkeypatch, answer)
    track, _ = noisy_track()
    found = call_peaks(track)  # auto prefers MACS3
    assert found.attrs["method"] == "macs3"
    assert found[["chrom", "start", "end", "summit"]].to_numpy().tolist() == [["chr1", 4000, 4400, 190],
                                                                           ["chr2", 20, 140, 7]]
    assert found["score"].tolist() == [16.3, 2.7]
    assert list(found.columns) == list(NARROWPEAK_COLUMNS)
    for name in ("treatment.bdg", "lambda.bdg"):  # bedGraph that tiles every chromosome
        bdg = pd.read_csv(folder / name, sep="\t", header=None, names=["chrom", "start", "end", "value"])
        for chrom, group in bdg.groupby("chrom"):
            assert group["start"].iloc[0] == 0
            assert (group["start"].to_numpy()[1:] == group["end"].to_numpy()[:-1]).all()
            assert group["end"].iloc[-1] == SIZES[chrom]
        assert (bdg["value"] >= 0).all()


def test_call_peaks__macs3_without_peaks_gives_an_empty_table(tmp_path, monkeypatch):
    fake_macs3(tmp_path, monkeypatch)
    found = call_peaks(noisy_track()[0], method="macs3")
    assert found.empty
    assert list(found.columns) == list(NARROWPEAK_COLUMNS)


def test_call_peaks__macs3_that_fails_is_quoted(tmp_path, monkeypatch):
    fake_macs3(tmp_path, monkeypatch, extra="sys.exit('out of patience')")
    with pytest.raises(InputError, match="macs3 bdgcmp must end well; it ended with status 1: out of patience"):
        call_peaks(noisy_track()[0], method="macs3")


def test_call_peaks__macs3_missing_names_the_extra(monkeypatch):
    monkeypatch.setattr(peaks.shutil, "which", lambda *_, **__: None)
    track, _ = noisy_track()
    with pytest.raises(DependencyError, match=r"pip install 'ciscribe\[peaks\]'"):
        call_peaks(track, method="macs3")
    assert call_peaks(track).attrs["method"] == "local"
