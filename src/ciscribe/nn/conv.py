"""Convolutions over positions, each pass of them run in the way that is fastest, and the stem built of them.

Between layers a tensor is ``(B, C, L)`` as everywhere, but on a CPU its memory runs channel by channel at each
position ("channels last"), where PyTorch's two-dimensional operators beat the one-dimensional ones. Every operator
of this module gives the numbers of its PyTorch namesake to 1e-6 of the largest, and keeps its parameters in the
namesake's shapes, so that published weights fit. A network built of these modules converts its one-hot input once
and nothing after it. What is decided, and what was measured (``benchmarks/convolutions.py``):

- `_as_image`: channels last on a CPU with oneDNN in float32 or less; elsewhere the namesake runs.
- `_correlate`: few outputs of a wide kernel (a profile head; the way back to the four bases) are one matrix product
  and a sum along its diagonals (3 to 10 times as fast); taps 128 or more positions apart over 512 or more channels,
  which collide in the cache, are laid side by side first.
- `_Correlation.backward`: oneDNN is slow at the gradient of a bias (the first layer: 5 times), and of a kernel over
  many positions, far dilations or few outputs (2 to 20 times): those are a sum, and a matrix product per tap.
- `MaxPool1d`: pooling by 2 without a gradient needs no indices of the maxima (2 to 4 times).
"""

from math import log2
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ciscribe.errors import SchemaError
from ciscribe.nn.intercept import Intercepted

Activation = Literal["relu", "exponential", "silu", "gelu", "gelu_tanh", "gelu_sigmoid"]

_WORTHWHILE = 400_000  # numbers in or out from which a backward pass of our own gains more than Python costs


def _as_image(x: Tensor) -> Tensor | None:
    """View ``(B, C, L)`` as an image of height 1 with channels last, or None where that would not be faster."""
    if isinstance(x, Intercepted):  # its own rules come first
        return None
    known = x.ndim == 3 and x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    if not (known and torch.backends.mkldnn.is_available()):
        return None
    return x.unsqueeze(2).contiguous(memory_format=torch.channels_last)


def _is_narrow(weight: Tensor) -> bool:
    n_out, n_in, width = weight.shape
    return n_out <= 8 and width >= 7 and n_in >= 16


def _is_far(weight: Tensor, dilation: int) -> bool:
    return weight.shape[1] >= 512 and dilation >= 128


def _correlate(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> Tensor:
    """Correlate an image ``(B, C, 1, L)`` with a kernel ``(out, C, width)``."""
    (n_out, n_in, width), (n, *_, length) = weight.shape, x.shape
    if not (_is_narrow(weight) or _is_far(weight, dilation)):
        return F.conv2d(x, weight.unsqueeze(2), bias, 1, (0, padding), (1, dilation))
    x, length = F.pad(x, (padding, padding)), length + 2 * padding
    n_positions = length - (width - 1) * dilation
    if not _is_narrow(weight):  # what all taps read, side by side, for a kernel of width 1
        read = torch.cat([x[..., tap * dilation:tap * dilation + n_positions] for tap in range(width)], dim=1)
        return F.conv2d(read, weight.transpose(1, 2).reshape(n_out, -1, 1, 1), bias)
    by_tap = weight.transpose(1, 2).reshape(1, n_out * width, n_in).expand(n, -1, -1)
    products = torch.bmm(by_tap, x.squeeze(2))  # of every tap at every position; output l takes tap t's at l + t · d
    sizes, strides = (n, n_out, width, n_positions), (n_out * width * length, width * length, length + dilation, 1)
    y = products.as_strided(sizes, strides).sum(2)
    return (y if bias is None else y + bias[:, None]).unsqueeze(2)


def _gradient(x: Tensor, weight: Tensor, gradient: Tensor, padding: int, dilation: int, of: int) -> Tensor:
    """Gradient by oneDNN of `_correlate` with respect to the image (0) or the kernel (1)."""
    found = torch.ops.aten.convolution_backward(
        gradient, x, weight.unsqueeze(2), None, [1, 1], [0, padding], [1, dilation], False, [0, 0], 1,
        [of == 0, of == 1, False])[of]
    return found.squeeze(2) if of else found


def _gradient_of_weight(x: Tensor, weight: Tensor, gradient: Tensor, padding: int, dilation: int) -> Tensor:
    """Gradient of `_correlate` with respect to the kernel, from the image and the gradient of the output."""
    width, length, n_positions = weight.shape[2], x.shape[3], gradient.shape[3]
    if _is_narrow(weight):  # the same sums are those of the kernel that leads from the outputs to the inputs
        swapped = _gradient(gradient, weight.transpose(0, 1), x, (width - 1) * dilation - padding, dilation, of=1)
        return swapped.transpose(0, 1).flip(2)
    if weight.shape[1] < 16 or (n_positions < 512 and dilation < 32):
        return _gradient(x, weight, gradient, padding, dilation, of=1)
    taps = []
    for shift in range(-padding, width * dilation - padding, dilation):  # output l reads input l + shift
        start, end = max(0, -shift), max(0, -shift, min(n_positions, length - shift))
        read = x[:, :, 0, start + shift:end + shift].transpose(1, 2)
        taps.append(torch.bmm(gradient[:, :, 0, start:end], read).sum(0))
    return torch.stack(taps, dim=2)


class _Correlation(torch.autograd.Function):
    """`_correlate` with a backward pass of its own, which can be differentiated again."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, dilation: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.at = padding, dilation
        return _correlate(x, weight, bias, padding, dilation)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, weight), (padding, dilation) = ctx.saved_tensors, ctx.at
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        of_x = of_weight = of_bias = None
        back = weight.transpose(0, 1)
        if ctx.needs_input_grad[0] and (_is_narrow(weight) or _is_narrow(back) or _is_far(back, dilation)):
            of_x = _correlate(gradient, back.flip(2), None, (weight.shape[2] - 1) * dilation - padding, dilation)
        elif ctx.needs_input_grad[0]:
            of_x = _gradient(x, weight, gradient, padding, dilation, of=0)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(x, weight, gradient, padding, dilation)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None, None


def conv1d(x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | tuple[int, ...] = 1,
           padding: int | tuple[int, ...] | str = 0, dilation: int | tuple[int, ...] = 1, groups: int = 1) -> Tensor:
    """`torch.nn.functional.conv1d` run as above."""
    image = _as_image(x)
    if image is None:
        return F.conv1d(x, weight, bias, stride, padding, dilation, groups)  # type: ignore[arg-type]
    step, far = (int(v) if isinstance(v, int) else int(v[0]) for v in (stride, dilation))
    reach = (weight.shape[2] - 1) * far
    if isinstance(padding, str):
        total = reach if padding == "same" else 0
        before = total // 2
        image = F.pad(image, (0, total % 2)) if total % 2 else image
    else:
        before = int(padding) if isinstance(padding, int) else int(padding[0])
    wider = max(1, weight.shape[0] // weight.shape[1])
    if step != 1 or groups != 1 or before > reach or torch.is_autocast_enabled("cpu"):
        y = F.conv2d(image, weight.unsqueeze(2), bias, (1, step), (0, before), (1, far), groups)
    elif torch.is_grad_enabled() and (_is_narrow(weight) or image.numel() * wider >= _WORTHWHILE):
        y = _Correlation.apply(image, weight, bias, before, far)
    else:
        y = _correlate(image, weight, bias, before, far)
    return y.squeeze(2)


class Conv1d(nn.Conv1d):
    """`torch.nn.Conv1d` run as above; ``padding="same"`` puts ``(k − 1) // 2`` left and ``k // 2`` right."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``(B, C, L)``."""
        if self.padding_mode != "zeros":
            return super().forward(input)
        return conv1d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class BatchNorm1d(nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` that keeps the layout; also takes ``(B, C)``."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in (2, 3, 4):
            super()._check_input_dim(input)

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each channel."""
        image = _as_image(input)
        return super().forward(input) if image is None else super().forward(image).squeeze(2)


class MaxPool1d(nn.MaxPool1d):
    """`torch.nn.MaxPool1d` in the fastest layout (without ``return_indices``)."""

    def forward(self, input: Tensor) -> Tensor:
        """Pool over positions."""
        image = _as_image(input)
        if image is None:
            return super().forward(input)  # type: ignore[return-value]
        k, s, p, d = (int(v) if isinstance(v, int) else int(v[0])
                      for v in (self.kernel_size, self.stride, self.padding, self.dilation))
        needs_indices = torch.is_grad_enabled() and image.requires_grad
        if (k, s, p, d, self.ceil_mode) == (2, 2, 0, 1, False) and not needs_indices:
            even = image.shape[3] // 2 * 2
            return torch.maximum(image[..., :even:2], image[..., 1:even:2]).squeeze(2)
        return F.max_pool2d(image, (1, k), (1, s), (0, p), (1, d), self.ceil_mode).squeeze(2)


class AvgPool1d(nn.AvgPool1d):
    """`torch.nn.AvgPool1d` in the fastest layout."""

    def forward(self, input: Tensor) -> Tensor:
        """Pool over positions."""
        image = _as_image(input)
        if image is None:
            return super().forward(input)
        k, s, p = (int(v) if isinstance(v, int) else int(v[0]) for v in (self.kernel_size, self.stride, self.padding))
        return F.avg_pool2d(image, (1, k), (1, s), (0, p), self.ceil_mode, self.count_include_pad).squeeze(2)


class Exponential(nn.Module):
    """exp(x): as the activation of the first layer it makes filters learn whole motifs.

    References
    ----------
    Koo & Ploenzke, Nat Mach Intell 2021, doi:10.1038/s42256-020-00291-x.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise exponential."""
        return x.exp()


class GELUSigmoid(nn.Module):
    """x · σ(1.702 x), the GELU of Enformer and of Basenji2's weights (up to 0.02 from the exact one)."""

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return x * torch.sigmoid(1.702 * x)


def activation(name: Activation) -> nn.Module:
    """A new activation module of that name; each call makes its own, so that attributions can tell them apart.

    Raises
    ------
    ValueError
        Listing the names.
    """
    known = {"relu": nn.ReLU, "exponential": Exponential, "silu": nn.SiLU, "gelu": nn.GELU,
             "gelu_tanh": lambda: nn.GELU(approximate="tanh"), "gelu_sigmoid": GELUSigmoid}
    if name not in known:
        raise ValueError(f"activation is one of {', '.join(known)}; got {name!r}")
    return known[name]()


def need_length(X: Tensor, length: int, model: str) -> None:
    """Refuse sequences that a model of fixed length cannot read.

    Raises
    ------
    SchemaError
        Naming the length that the model takes and how to have another.
    """
    if X.shape[-1] != length:
        raise SchemaError(f"{model} reads sequences of {length:,} bp; got {X.shape[-1]:,} bp; pad or trim them, or "
                          f"create the model with length={X.shape[-1]}")


def need_bins(X: Tensor, bin: int, crop: int, model: str) -> None:
    """Refuse sequences that do not fill whole bins, or of which the crop leaves nothing.

    Parameters
    ----------
    bin, crop
        bp; `crop` is cut off either side.

    Raises
    ------
    SchemaError
        Naming the lengths that the model takes.
    """
    length, cropped = X.shape[-1], 2 * crop
    if length % bin or length <= cropped:
        raise SchemaError(f"{model} reads multiples of {bin} bp longer than {cropped:,} bp, the crop of both sides; "
                          f"got {length:,} bp; pad or trim the sequences, or change crop")


class ConvStem(nn.Module):
    """Embed one-hot DNA into bins of `resolution` bp.

    ``resolution=1`` is a linear map of the four channels (the embedding of the paper). Otherwise a motif
    convolution (stride 1, max-pooled by 4 or 2) is followed by convolution + pooling stages until the
    bin size is reached.

    Parameters
    ----------
    d_model
        Channels out.
    resolution
        Bin in bp: 1 or a power of two from 4.
    channels
        Channels of the first (motif) layer; they grow evenly to `d_model`.
    kernel
        Width of the motif layer in bp.
    """

    def __init__(self, d_model: int, resolution: int, *, channels: int = 48, kernel: int = 15):
        super().__init__()
        self.resolution = resolution
        if resolution == 1:
            self.layers: nn.Module = Conv1d(4, d_model, 1)
            return
        if resolution < 4 or 2 ** int(log2(resolution)) != resolution:
            raise ValueError(f"resolution is 1 or a power of two from 4 bp; got {resolution}")
        stages = []
        left = resolution // 4
        while left > 1:
            step = 4 if left % 4 == 0 else 2
            stages.append(step)
            left //= step
        layers: list[nn.Module] = [Conv1d(4, channels, kernel, padding=kernel // 2), MaxPool1d(4), nn.ReLU()]
        width = channels
        for i, step in enumerate(stages):
            wider = channels + (d_model - channels) * (i + 1) // len(stages)
            layers += [BatchNorm1d(width), Conv1d(width, wider, 5, padding=2), MaxPool1d(step), nn.ReLU()]
            width = wider
        layers += [BatchNorm1d(width), Conv1d(width, d_model, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, X: Float[Tensor, "B 4 L"]) -> Float[Tensor, "B bins d"]:
        """Embed sequences; L must be a multiple of the resolution."""
        if X.shape[-1] % self.resolution:
            raise ValueError(f"a window of {X.shape[-1]} bp is not a multiple of the resolution {self.resolution} bp")
        return self.layers(X).transpose(1, 2)
