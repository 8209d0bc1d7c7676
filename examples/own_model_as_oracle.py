"""Ask your own PyTorch model what ciscribe's models are asked: predictions, and what an element is worth.

Run it as ``python examples/own_model_as_oracle.py``.

Any module that turns one-hot DNA into one number a target works; it need not know of ciscribe. Here it is a
hand-made network that looks for the transcription factors of the liver and adds up what it finds near the gene. The
simulated world says what each element really does, so we can see how far such a model gets.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ciscribe.data.motif_table import factor
from ciscribe.data.world import world
from ciscribe.oracle import Oracle
from ciscribe.sequence import N, one_hot_tensor
from ciscribe.testing import check_model

HALF = 8_192  # bp on each side of the TSS


class MotifSum(nn.Module):
    """Expression as the sum of motif matches, each weighted by its closeness to the TSS."""

    def __init__(self, names: tuple[str, ...]):
        super().__init__()
        ppms = [torch.tensor(factor(name).ppm, dtype=torch.float32) for name in names]
        width = max(p.shape[1] for p in ppms) | 1  # odd, so that a site is centered on its hit
        both = [s for p in ppms for s in (p, p.flip(0, 1))]  # and its reverse complement: A C G T read backwards
        weights = [nn.functional.pad((4 * s + 1e-2).log2(), (0, width - s.shape[1])) for s in both]
        self.scan = nn.Conv1d(4, len(both), width, padding="same")
        self.scan.weight.data.copy_(torch.stack(weights))
        best = torch.tensor([(4 * s + 1e-2).log2().amax(dim=0).sum() for s in both])
        self.scan.bias.data.copy_(-0.7 * best)  # a site scores at least 70 % of the best possible

    def forward(self, X: Tensor) -> Tensor:
        """One-hot ``(B, 4, L)``, the TSS in the middle, to ``(B, 1)``."""
        hits = torch.sigmoid(self.scan(X)).sum(dim=1)  # B L
        distance = torch.arange(X.shape[-1]) - X.shape[-1] / 2
        return (hits / (1 + distance.abs() / 5_000)).sum(dim=1, keepdim=True)


def main() -> dict[str, float]:
    """Check the model, predict all genes, erase elements; return the correlations with the truth."""
    w = world(n_genes=60, n_chroms=3, seed=2)
    codes, tss = w.windows(half=HALF)
    model = MotifSum(("FOXA2", "HNF4A", "HNF1A", "CEBPA"))
    check_model(model, one_hot_tensor(torch.from_numpy(codes[:3])), n_targets=1, atol=1e-4)

    oracle = Oracle(model, device="cpu")
    before = oracle.predict(torch.from_numpy(codes))[:, 0].numpy()
    over_genes = np.corrcoef(before, w.expression_clean["liver"])[0, 1]

    rows = {gene: i for i, gene in enumerate(w.genes["gene_id"])}
    starts = w.genes["tss"].to_numpy() - HALF
    links = w.links.query("cell == 'liver' and distance < @HALF").reset_index(drop=True)
    gene = np.array([rows[g] for g in links["gene_id"]])
    edited = codes[gene]
    for window, lo, hi in zip(edited, links["start"] - starts[gene], links["end"] - starts[gene], strict=True):
        window[max(lo, 0):hi] = N
    effect = before[gene] - oracle.predict(torch.from_numpy(edited))[:, 0].numpy()
    over_elements = np.corrcoef(effect, links["effect"])[0, 1]
    return {"expression of genes": float(over_genes), "effect of elements": float(over_elements),
            "elements": len(links), "TSS": tss}


if __name__ == "__main__":
    found = main()
    for what in ("expression of genes", "effect of elements"):
        print(f"{what}: r {found[what]:.2f} with the truth")
