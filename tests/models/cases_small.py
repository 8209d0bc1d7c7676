"""The small convolutional models of the zoo, each option once."""

from model_case import Case

_DEEPSEA = {"n_targets": 7, "length": 199, "filters": (11, 13, 5), "hidden": 17}
_BASSET = {"n_targets": 7, "length": 227, "filters": (11, 13, 5), "hidden": 17}
_DANQ = {"n_targets": 7, "length": 61, "filters": 11, "kernel": 5, "pool": 3, "lstm": 13, "hidden": 17}
_DEEPSTARR = {"n_targets": 7, "length": 61, "filters": (11, 13, 5, 3), "hidden": 17}
_MALINOIS = {"n_targets": 7, "length": 107, "filters": (11, 13, 5), "hidden": 17, "branch": 19}
_JORES = {"n_targets": 7, "length": 61, "filters": 11, "kernel": 5, "hidden": 17}
_XPRESSO = {"n_targets": 7, "length": 607, "filters": (11, 13), "hidden": (17, 19)}
_EXPONENTIAL = {"first_activation": "exponential"}

CASES = {
    "deepbind": Case({"n_targets": 7, "filters": 11, "kernel": 5, "hidden": 13}, length=61),
    "deepbind rna": Case({"n_targets": 7, "filters": 11, "kernel": 5, "hidden": 13, "pool": "max_mean",
                          "dropout": 0.5}, length=61),
    "deepbind linear": Case({"n_targets": 7, "filters": 11, "kernel": 5, "hidden": 0}, length=3),
    "deepbind exponential": Case({"n_targets": 7, "filters": 11, "kernel": 5} | _EXPONENTIAL, length=61),
    "deepsea": Case(_DEEPSEA, length=199),
    "deepsea torch7": Case(_DEEPSEA | {"threshold": 1e-6}, length=199),
    "deepsea exponential": Case(_DEEPSEA | _EXPONENTIAL, length=199),
    "basset": Case(_BASSET, length=227),
    "basset same": Case(_BASSET | {"padding": "same", "length": 61}, length=61),
    "basset exponential": Case(_BASSET | _EXPONENTIAL, length=227),
    "danq": Case(_DANQ, length=61),
    "danq exponential": Case(_DANQ | _EXPONENTIAL, length=61),
    "deepstarr": Case(_DEEPSTARR, length=61),
    "deepstarr exponential": Case(_DEEPSTARR | _EXPONENTIAL, length=61),
    "malinois": Case(_MALINOIS, length=107),
    "malinois exponential": Case(_MALINOIS | _EXPONENTIAL, length=107),
    "jores": Case(_JORES, length=61),
    "jores faithful": Case(_JORES | {"faithful": True}, length=61),
    "jores exponential": Case(_JORES | _EXPONENTIAL, length=61),
    "xpresso": Case(_XPRESSO | {"n_covariates": 5}, length=607, n_covariates=5),
    "xpresso sequence": Case(_XPRESSO | {"n_covariates": 0}, length=607),
    "xpresso exponential": Case(_XPRESSO | {"n_covariates": 5} | _EXPONENTIAL, length=607, n_covariates=5),
}
