"""Small instances of the networks of long sequences, and of LegNet."""

from model_case import Case

from ciscribe.oracle import ExpectedBin, WindowSum

BELUGA = {"channels": (3, 5, 7), "hidden": 11}
EXPECTO = {"n_targets": 7, "n_bins": 5, "step": 53, "context": 311, "n_features": 13, **BELUGA}
BASENJI = {"n_targets": 7, "channels": (5, 3, 7, 11, 13, 17), "n_dilated": 2, "dilated_channels": 5,
           "head_channels": 19, "crop": 128}
BASENJI2 = {"n_targets": 7, "stem_channels": 5, "channels": (3, 7, 11, 13, 17, 19), "n_residual": 3,
            "residual_channels": 5, "head_channels": 23, "crop": 128}
EXPRESNET = {"n_targets": 7, "channels": (3, 5, 7, 11), "hidden": 13}
HUMAN = {"n_targets": 7, "stem_channels": 5, "channels": (7, 11, 13)}
YEAST = {"n_targets": 13, "stem_channels": 8, "channels": (12, 4)}

CASES = {
    "beluga": Case({"n_targets": 7, "length": 331, **BELUGA}, length=331),
    "beluga exponential": Case({"n_targets": 7, "length": 331, "first_activation": "exponential", **BELUGA},
                               length=331),
    "expecto": Case(EXPECTO, length=5 * 53),
    "expecto flanks": Case(EXPECTO | {"chunk_size": 2, "first_activation": "exponential"}, length=5 * 53 + 311),
    "basenji": Case(BASENJI, length=5 * 128, readout=WindowSum()),
    "basenji exponential": Case(BASENJI | {"first_activation": "exponential", "crop": 0}, length=3 * 128,
                                readout=WindowSum()),
    "basenji2": Case(BASENJI2, length=5 * 128, readout=WindowSum()),
    "basenji2 exponential": Case(BASENJI2 | {"first_activation": "exponential", "crop": 0}, length=3 * 128,
                                 readout=WindowSum()),
    "expresnet": Case(EXPRESNET, length=1009),
    "expresnet flatten": Case(EXPRESNET | {"pool": "flatten", "length": 1201}, length=1201),
    "legnet": Case(HUMAN, length=61),
    "legnet exponential": Case(HUMAN | {"first_activation": "exponential"}, length=61),
    "legnet optimised": Case(YEAST | {"version": "optimised"}, length=31, n_targets=13, n_covariates=2),
    "legnet expected": Case(YEAST | {"version": "optimised"}, length=31, n_targets=1, n_covariates=2,
                            readout=ExpectedBin()),
    "legnet dream": Case(YEAST | {"version": "dream"}, length=31, n_targets=13, n_covariates=2),
}
