"""The demonstration: the main job on a simulated world, where every answer is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ciscribe.config import parse_config
from ciscribe.data.world import world
from ciscribe.provenance import digest, write_json
from ciscribe.workflow.run import Run


def demo_config(root: str | Path, cells: tuple[str, ...], *, fast: bool = False, seed: int = 0) -> dict[str, Any]:
    """Configuration of the demonstration; `root` is the folder that holds ``world/``.

    The settings were chosen on the validation chromosomes of this world and of others with other seeds.
    """
    marks = [f"{mark}_{cell}" for mark in ("atac", "h3k27ac") for cell in cells]
    return {
        "name": "demo", "seed": seed,
        "data": {
            "root": str(root), "genome": "world/genome.fa", "genes": {"path": "world/genes.gtf"},
            "expression": {"path": "world/expression.tsv"}, "truth": "world",
            "tracks": [{"name": m, "bigwig": f"world/{m}.bw"} for m in marks]},
        "window": {"half_width": 10_240, "resolution": 128, "contact": True, "contact_d0": 3000.0,
                   "strand_aware": True},
        "split": {"valid": ["chr5"], "test": ["chr6"]},
        "model": {"name": "seq2exp", "arguments": {
            "resolution": 128, "d_model": 48, "n_layers": 2, "d_state": 4, "expand": 1, "stem_channels": 32,
            "pool": "window", "dropout": 0.1, "include_bp": 0, "prior_scale": 1.0, "beta_min": 0.1, "z_scale": 10.0,
            # open chromatin says where an element is, acetylation (broad, on its flanks) what it does
            "weights": [3.0] * len(cells) + [1.0] * len(cells) + [0.5]}},
        "train": {"epochs": 2 if fast else 30, "batch_size": 16, "learning_rate": 3e-3, "weight_decay": 0.05,
                  "average": 0.98, "max_shift": 256, "reverse_complement": True,
                  "loss": {"mask_kl": 0.003, "contrast": 1.0}},
        "elements": {"bp_fraction": 0.12},
        "report": {"title": "Demonstration: a simulated genome with known regulation"},
    }


def run_demo(folder: str | Path, *, fast: bool = False, seed: int = 0, tell: Callable[[str], None] = print,
             progress: bool = True) -> Path:
    """Simulate a world, run the main job on it, and leave a run folder with a report.

    Parameters
    ----------
    folder
        Run folder; the world is written to ``world/`` in it, once.
    fast
        A smaller world and two epochs.
    seed
        Of world and training.
    tell, progress
        See `ciscribe.workflow.run.Run`.

    Returns
    -------
    Path
        The run folder.
    """
    folder = Path(folder).resolve()
    n_genes = 150 if fast else 1200
    recipe = {"n_genes": n_genes, "seed": seed}
    stamp = folder / "world" / "recipe.json"
    if not stamp.exists() or digest(recipe) not in stamp.read_text():
        tell(f"world: {n_genes} genes on six chromosomes …")
        truth = world(n_genes=n_genes, seed=seed)
        truth.write(folder / "world")
        write_json(stamp, {"digest": digest(recipe), **recipe})
    config = parse_config(demo_config(folder, ("liver", "blood", "neuron"), fast=fast, seed=seed), "the demonstration")
    return Run(folder, config, tell=tell, progress=progress).run()



