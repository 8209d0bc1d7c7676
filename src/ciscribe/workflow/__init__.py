"""Jobs: a run from genome to report, a model of a reporter assay, a benchmark of many."""
