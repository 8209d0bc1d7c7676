"""Called regulatory elements: from a model's mask or a signal's peaks to intervals, and how good they are.

`call` turns the posterior of a mask into elements with effects, `peaks` calls the classical baseline, and
`benchmark` compares any of them with a truth at equal base pairs, or through the model itself. `bins` scores every
bin of every window instead of calling some, `truth` asks whether such scores find what is known beside the controls
that a lucky caller does not pass, and `scan` is the humble rival.
"""

from ciscribe.elements import benchmark, call, peaks, scan, truth
from ciscribe.elements.benchmark import CallBenchmark, benchmark_calls, benchmark_links, sufficiency_necessity
from ciscribe.elements.bins import Bins, erasure_scores
from ciscribe.elements.call import MaskedOracle, call_elements, measure_effects, pool_elements, to_bed
from ciscribe.elements.peaks import call_peaks
from ciscribe.elements.scan import KmerScan, fit_kmer_ridge
from ciscribe.elements.truth import agreement, benchmark_bins, by_distance, composition, specific_sites, target_pairs

CARDS = (call.CARD, peaks.LOCAL_CARD, peaks.MACS3_CARD, benchmark.CARD, truth.CARD, scan.CARD)
"""Cards of the callers, of their rival, and of the benchmarks."""

__all__ = ["CARDS", "Bins", "CallBenchmark", "KmerScan", "MaskedOracle", "agreement", "benchmark_bins",
           "benchmark_calls", "benchmark_links", "by_distance", "call_elements", "call_peaks", "composition",
           "erasure_scores", "fit_kmer_ridge", "measure_effects", "pool_elements", "specific_sites",
           "sufficiency_necessity", "target_pairs", "to_bed"]
