"""Called regulatory elements: from a model's mask or a signal's peaks to intervals, and how good they are.

`call` turns the posterior of a mask into elements with effects, `peaks` calls the classical baseline, and
`benchmark` compares any of them with a truth at equal base pairs, or through the model itself.
"""

from ciscribe.elements import benchmark, call, peaks
from ciscribe.elements.benchmark import CallBenchmark, benchmark_calls, benchmark_links, sufficiency_necessity
from ciscribe.elements.call import MaskedOracle, call_elements, measure_effects, pool_elements, to_bed
from ciscribe.elements.peaks import call_peaks

CARDS = (call.CARD, peaks.LOCAL_CARD, peaks.MACS3_CARD, benchmark.CARD)
"""Cards of the callers and of the benchmark."""

__all__ = ["CARDS", "CallBenchmark", "MaskedOracle", "benchmark_calls", "benchmark_links", "call_elements",
           "call_peaks", "measure_effects", "pool_elements", "sufficiency_necessity", "to_bed"]
