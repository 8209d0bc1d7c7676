"""ChromBPNet: chromatin accessibility at every base, freed of what the enzyme prefers.

Pampari et al., "ChromBPNet: bias factorized, base-resolution deep learning models of chromatin accessibility",
bioRxiv 2024, doi:10.1101/2024.12.25.630221; kundajelab/chrombpnet@ece97c9:chrombpnet/training/models (cited;
written from the layer tables).

Training is factorised. A bias network learns the enzyme's preferences where no factor binds; then it is frozen, and
the body explains what is left::

    bias = BPNet(1, variant="chrombpnet", n_filters=128, n_layers=4, profile_length=1000)
    ...                                       # train it on windows outside of peaks
    model = ChromBPNet()
    model.bias.load_state_dict(bias.state_dict())
    model.calibrate_bias(X, counts)           # windows outside of peaks, of the training chromosomes
    ...                                       # train the model; the bias network stays as it is
    model.body                                # predicts without the bias
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ciscribe.card import Card
from ciscribe.errors import SchemaError
from ciscribe.models.bpnet import BPNet
from ciscribe.nn.conv import Activation

CARD = Card(
    name="chrombpnet", kind="model", task="profile",
    summary="Predicts the base-resolution profile of chromatin accessibility and its count, apart from enzyme bias.",
    paper="Pampari et al., bioRxiv 2024, doi:10.1101/2024.12.25.630221",
    code="kundajelab/chrombpnet@ece97c9:chrombpnet/training/models (cited; written from the layer tables)",
    parameters=6_595_716, input_length=2114, receptive_field=1115, resolution=1, crop=557,
    attribution=("gradient", "ism", "deeplift"),
    differences=(
        "Trained in two steps: the bias network alone on GC-matched windows outside of peaks with counts below half "
        "of the 1 % quantile of peaks; then it is frozen and kept in evaluation mode, the bias of its count layer is "
        "shifted by calibrate_bias, and the body is trained beside it.",
        "The prediction without bias is that of the body, model.body.",
        "Of the bias network's profile only the positions that are kept are computed.",
    ),
)
PRESETS = {"cpu": {"n_filters": 32, "bias_filters": 16}}


class ChromBPNet(nn.Module):
    """Two networks of dilated convolutions, body and frozen bias, whose profile logits add and whose counts add.

    Parameters
    ----------
    n_targets
        Assays.
    n_filters, n_layers
        Width and dilated layers of the body.
    bias_filters, bias_layers
        The same of the bias network.
    profile_length
        Positions of the profile.
    with_bias
        False predicts with the body alone; the weights are the same.
    first_activation
        After the body's first convolution.

    Attributes
    ----------
    body, bias
        `ciscribe.models.bpnet.BPNet`, each a model of its own with the same outputs.
    """

    def __init__(self, n_targets: int = 1, *, n_filters: int = 512, n_layers: int = 8, bias_filters: int = 128,
                 bias_layers: int = 4, profile_length: int = 1000, with_bias: bool = True,
                 first_activation: Activation = "relu"):
        super().__init__()
        self.with_bias = with_bias
        self.body = BPNet(n_targets, variant="chrombpnet", n_filters=n_filters, n_layers=n_layers,
                          profile_length=profile_length, first_activation=first_activation)
        self.bias = BPNet(n_targets, variant="chrombpnet", n_filters=bias_filters, n_layers=bias_layers,
                          profile_length=profile_length)
        self.bias.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "ChromBPNet":
        """Set the mode of the body; the bias network stays in evaluation mode."""
        super().train(mode)
        self.bias.eval()
        return self

    def forward(self, X: Float[Tensor, "B 4 L"]) -> dict[str, Tensor]:
        """Predict {"profile": logits ``(B, n_targets, profile_length)``, "counts": ln(1 + count) ``(B, n_targets)``}.

        Counts add as counts: the log of the sum of both networks' exponentials.
        """
        body = self.body(X)
        if not self.with_bias:
            return body
        bias = self.bias(X)
        return {"profile": body["profile"] + bias["profile"],
                "counts": torch.logaddexp(body["counts"], bias["counts"])}

    @torch.no_grad()
    def calibrate_bias(self, X: Float[Tensor, "B 4 L"], counts: Float[Tensor, "N T"], batch_size: int = 64
                       ) -> Float[Tensor, " T"]:
        """Shift the bias network's log count to the depth of this experiment; once, before the body is trained.

        Parameters
        ----------
        X, counts
            One-hot windows outside of peaks and their total counts for each target; training chromosomes only.
        batch_size
            Windows a pass.

        Returns
        -------
        Tensor
            What was added: the mean of ln(1 + count) − prediction for each target.

        Raises
        ------
        SchemaError
            Without windows, or when windows and counts do not fit each other.
        """
        n_targets = self.bias.counts.out_features
        if not len(X) or tuple(counts.shape) != (len(X), n_targets):
            raise SchemaError(f"calibration reads windows (B, 4, L), B ≥ 1, and counts (B, {n_targets}) of the same "
                              f"windows; got {tuple(X.shape)} and {tuple(counts.shape)}")
        network = self.bias.only("counts")
        predicted = torch.cat([network(X[i:i + batch_size])["counts"] for i in range(0, len(X), batch_size)])
        shift = (torch.log1p(counts) - predicted).mean(dim=0)
        self.bias.counts.bias.add_(shift)
        return shift
