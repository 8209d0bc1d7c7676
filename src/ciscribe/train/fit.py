"""Train a model on batches of windows or sequences; the only place that knows Lightning.

AdamW, warm-up and decay of the rate, early stopping on the task's validation error, one checkpoint an epoch. The
random numbers of an epoch depend on the seed and the epoch alone, so that a training that was killed and
resumed ends with the weights of one that was not. Beside it, what transfer needs: frozen parameters, a new head, and
a head that starts at the mean.
"""

import copy
import logging
import math
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import lightning as L
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, RichProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ciscribe.data.windows import Batch
from ciscribe.errors import CheckpointError, ConfigError, DeviceError, DivergedError, SchemaError, nearest
from ciscribe.oracle import resolve_device
from ciscribe.sequence import one_hot_tensor
from ciscribe.train.tasks import Expression, Task

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


@runtime_checkable
class Augment(Protocol):
    """Anything that alters the sequences of a training step; randomness comes from PyTorch's own generator."""

    def __call__(self, codes: UInt8[Tensor, "B L"]) -> UInt8[Tensor, "B L"]:
        """Altered codes, of the same shape and on the same device."""
        ...


@dataclass(frozen=True)
class FitSpec:
    """How a model is trained.

    Parameters
    ----------
    epochs, batch_size
        Passes over the training genes, and genes that go through the model together.
    accumulate
        Batches whose mean gradient makes one step of the optimizer, which then sees ``accumulate · batch_size`` genes:
        for batches that memory does not hold.
    steps
        Of the optimizer, instead of `epochs`; the last epoch then ends, and is validated, after a part of the genes.
        None counts epochs.
    learning_rate, final_learning_rate, weight_decay, betas
        AdamW. The rate rises over `warmup` (fraction of all steps) from a fiftieth and falls to
        `final_learning_rate`. None: a fifth of `learning_rate`, as Seq2Exp was published.
    warmup, schedule
        ``cosine``: linear rise, then half a cosine; ``onecycle``: both are half cosines (LegNet: rise 0.3, final
        rate near 0); ``constant``: linear rise, then no fall.
    gradient_clip
        Largest norm of the gradient.
    average
        Decay of the moving average of the weights (per step) that is validated and saved; 0 switches it off.
    patience
        Epochs without a better validation error before training stops; None never stops early. Epochs count once the
        averages of weights and of batch norms have forgotten the start: before, they lag behind what was learned.
    max_shift
        Augmentation: windows move by up to this many bp. The loader does it.
    reverse_complement
        Augmentation: half of the windows, drawn anew each step, are read on the other strand. For windows that are
        not strand-aware, or when the direction of the gene shall not matter. Targets stay, so they must be numbers
        of the whole window, not bins.
    augment
        Alters the sequences of each training step.
    task
        What is minimized, compared on validation and scored; see `train.tasks`.
    freeze
        Shell patterns of names of parameters that are kept as they are, e.g. ``("stem.*", "tower.*")``. A batch norm
        that one matches also keeps its running statistics.
    precision
        ``auto``: bf16 on a GPU, else fp32. ``bf16`` halves the time of convolutions on a CPU that has it (AVX-512
        BF16, AMX). Weights and the optimizer stay in fp32.
    device
        None takes a GPU when there is one. `n_devices` of them (or, on the CPU, processes) train in parallel (DDP):
        each takes every n-th step's genes, so a step of the optimizer sees `batch_size` genes from each.
    n_devices, n_workers, n_threads
        Of GPUs; of reading processes; of CPU threads (None leaves PyTorch's choice).
    """

    epochs: int = 10
    steps: int | None = None
    batch_size: int = 8
    accumulate: int = 1
    learning_rate: float = 5e-4
    final_learning_rate: float | None = None
    weight_decay: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.1
    schedule: Literal["cosine", "onecycle", "constant"] = "cosine"
    gradient_clip: float = 1.0
    average: float = 0.0
    patience: int | None = None
    max_shift: int = 0
    reverse_complement: bool = False
    augment: Augment | None = None
    task: Task = field(default_factory=Expression)
    freeze: tuple[str, ...] = ()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str | None = None
    n_devices: int = 1
    n_workers: int = 0
    n_threads: int | None = None


class _Trainee(L.LightningModule):
    """A model in training: steps, optimizer, averaged weights."""

    def __init__(self, model: nn.Module, spec: FitSpec, seed: int, identity: str, fixed: list[nn.Module]):
        super().__init__()
        self.model, self.spec, self.seed, self.identity = model, spec, seed, identity
        self.averaged = copy.deepcopy(model).requires_grad_(False) if spec.average else None
        self._norms: list[nn.Module] = [m for m in model.modules() if isinstance(m, _NORMS)]
        self._fixed = fixed
        self._averaged_step = 0
        self.error = ""  # the column of the log that is minimized
        self._sums: dict[str, Tensor | float] = {}
        self._n_seen = 0
        self._observed: list[Tensor] = []
        self._predicted: list[Tensor] = []

    @property
    def best_guess(self) -> nn.Module:
        """The network that is validated and saved."""
        return self.averaged or self.model

    def _autocast(self) -> torch.autocast:
        """Forward passes in bf16 where that is asked for; it needs no scaling of losses, unlike fp16."""
        bf16 = self.spec.precision == "bf16" or (self.spec.precision == "auto" and self.device.type == "cuda")
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def train(self, mode: bool = True) -> "_Trainee":
        super().train(mode)
        for norm in self._fixed:
            norm.eval()
        return self

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:  # Lightning leaves the epoch's own hook out in the first epoch after a resumption
            torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)
            self._sums, self._n_seen = {}, 0

    def training_step(self, batch: Batch, i_batch: int) -> Tensor:
        if self.spec.reverse_complement:
            batch = _flip_half(batch)
        codes = batch.codes if self.spec.augment is None else self.spec.augment(batch.codes)
        size = len(codes)
        with _running_statistics(self._norms if size == 1 < self.spec.batch_size else []), self._autocast():
            output = self.model(one_hot_tensor(codes), **_extras(batch))
        terms = self.spec.task.terms(output, batch.targets)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise DivergedError(f"the loss became {loss.item()} at step {self.global_step}; "
                                "lower learning_rate or check the signals for extreme values")
        for name, term in (*terms.items(), ("loss", loss)):
            self._sums[name] = self._sums.get(name, 0.0) + size * term.detach()
        self._n_seen += size
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.spec.steps is not None and self.trainer.global_step >= self.spec.steps:
            self.trainer.should_stop = True  # and validate; Lightning's own max_steps does not, and cannot resume
        if self.averaged is None or self.trainer.global_step == self._averaged_step:
            return
        self._averaged_step = self.trainer.global_step
        step = 1.0 if self.trainer.global_step <= 1 else 1 - self.spec.average
        with torch.no_grad():
            for mine, theirs in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                mine.lerp_(theirs, step)
            for mine, theirs in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                mine.copy_(theirs)  # running statistics follow the model

    def validation_step(self, batch: Batch, i_batch: int) -> None:
        with self._autocast():
            output = self.best_guess(one_hot_tensor(batch.codes), **_extras(batch))
        self._predicted.append(self.spec.task.predictions(output).float())
        self._observed.append(batch.targets)

    def on_validation_epoch_end(self) -> None:
        figures = self.spec.task.figures(torch.cat(self._predicted), torch.cat(self._observed))
        self._predicted.clear()
        self._observed.clear()
        self.error = f"valid_{next(iter(figures))}"
        together = self.trainer.world_size > 1
        for name, total in self._sums.items():
            self.log(f"train_{name}", total / self._n_seen, prog_bar=name == "loss", sync_dist=together)
        for name, value in figures.items():
            self.log(f"valid_{name}", value, prog_bar=True, sync_dist=together)

    def configure_optimizers(self) -> Any:
        s = self.spec
        trained = [p for p in self.model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW([{"params": [p for p in trained if p.ndim > 1], "weight_decay": s.weight_decay},
                                       {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}],
                                      lr=s.learning_rate, betas=s.betas, fused=True)  # 5 times as fast on a CPU
        total = s.steps or max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(s, step, total))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = self.identity

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get("identity") != self.identity:
            raise CheckpointError("the checkpoint belongs to another model, data set or training plan "
                                  f"({checkpoint.get('identity')}, this run is {self.identity}); "
                                  "use another run folder or remove its checkpoints/")


def _rate(spec: FitSpec, step: int, total: int) -> float:
    """Learning rate of a step, as a fraction of the highest."""
    warm = max(1, int(spec.warmup * total))
    if step < warm:
        rise = step / warm
        return 0.02 + 0.98 * ((1 - math.cos(math.pi * rise)) / 2 if spec.schedule == "onecycle" else rise)
    if spec.schedule == "constant":
        return 1.0
    last = 0.2 if spec.final_learning_rate is None else spec.final_learning_rate / spec.learning_rate
    return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))


@contextmanager
def _running_statistics(norms: list[nn.Module]) -> Iterator[None]:
    """Let batch norms use their running statistics: what is left of an epoch may be one example, without variance."""
    training = [norm for norm in norms if norm.training]
    try:
        for norm in training:
            norm.eval()
        yield
    finally:
        for norm in training:
            norm.train()


def _extras(batch: Batch) -> dict[str, torch.Tensor]:
    extras: dict[str, torch.Tensor] = {}
    if batch.signals.shape[1]:
        extras["S"] = batch.signals
    if batch.covariates.shape[1]:
        extras["covariates"] = batch.covariates
    if bool((batch.keep == 0).any()):
        extras["keep"] = batch.keep
    return extras


def _flip_half(batch: Batch) -> Batch:
    flip = torch.rand(len(batch.codes), device=batch.codes.device) < 0.5
    complement = batch.codes.new_tensor([3, 2, 1, 0, 4])
    codes = complement[batch.codes.flip(-1).long()]
    return batch._replace(codes=torch.where(flip[:, None], codes, batch.codes),
                          signals=torch.where(flip[:, None, None], batch.signals.flip(-1), batch.signals),
                          keep=torch.where(flip[:, None], batch.keep.flip(-1), batch.keep))


_SHOWN = {"mse": "MSE", "pearson": "r", "bce": "BCE", "auroc": "AUROC", "auprc": "AUPRC"}


class _Epochs(Callback):
    """Keep the figures of each epoch and the weights of the best, in the checkpoint too; stop when none gets better."""

    def __init__(self, patience: int | None, settled: float, tell: Callable[[str], None] | None):
        self.patience = math.inf if patience is None else patience
        self.settled = settled  # step from which validation says what was learned
        self.tell = tell or (lambda line: None)
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.lowest, self.waited = math.inf, 0

    def __getstate__(self) -> dict[str, Any]:  # a process of its own (DDP) cannot call back, so it prints
        return self.__dict__ | {"tell": print}

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rows", "best", "lowest", "waited")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.__dict__.update(state_dict)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        figures = {k: float(v) for k, v in trainer.callback_metrics.items()}
        error = figures[str(pl_module.error)]
        if error < self.lowest or not self.best:
            self.lowest, self.waited = (math.inf if math.isnan(error) else error), 0
            weights = pl_module.best_guess.state_dict()  # type: ignore[union-attr, operator]
            self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        elif trainer.global_step >= self.settled:
            self.waited += 1
        trainer.should_stop = trainer.should_stop or self.waited >= self.patience
        self.rows.append({"epoch": trainer.current_epoch} | figures)
        valid = [(k.removeprefix("valid_"), v) for k, v in figures.items() if k.startswith("valid_")]
        self.tell(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: train loss {figures['train_loss']:.4f}, "
                  "validation " + ", ".join(f"{_SHOWN.get(name, name)} {value:.4f}" for name, value in valid))


def fit(model: nn.Module, train: DataLoader, valid: DataLoader, spec: FitSpec, *, folder: str | Path | None = None,
        seed: int = 0, identity: str = "", progress: bool = True, tell: Callable[[str], None] | None = None
        ) -> tuple[nn.Module, pd.DataFrame]:
    """Train, and give back the model of the best validation epoch and the log.

    Parameters
    ----------
    model
        Trained in place; the same object comes back with the best weights.
    train, valid
        Loaders of `ciscribe.data.windows.Batch`, e.g. from `ciscribe.data.windows.loader`.
    spec
        The plan.
    folder
        For the checkpoint. When it holds one of the same `identity`, training continues there. None writes none,
        for many small trainings.
    seed
        Of everything random in training (order of the genes, dropout, mask samples).
    identity
        Fingerprint of model, data and plan; a checkpoint with another one is refused.
    progress
        Show a bar.
    tell
        Called with one line an epoch.

    Returns
    -------
    model, DataFrame
        The log has one row an epoch: ``epoch``, ``train_loss`` and ``train_<term>`` for the task's terms, and
        ``valid_<figure>`` for its figures, e.g. ``valid_mse, valid_pearson``.

    Raises
    ------
    DeviceError, CheckpointError
        A GPU that is absent; a checkpoint of another run.
    ConfigError
        When a pattern of `freeze` matches no parameter, or all of them are frozen.
    """
    device = resolve_device(spec.device)
    if device.type == "cuda" and spec.n_devices > torch.cuda.device_count():
        raise DeviceError(f"{spec.n_devices} GPUs were asked for, PyTorch sees {torch.cuda.device_count()}")
    if spec.n_threads:
        torch.set_num_threads(spec.n_threads)
    with ExitStack() as stack:
        if folder is None and spec.n_devices > 1:  # processes hand their result over in the checkpoint
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        fixed = stack.enter_context(_frozen(model, spec.freeze))
        stack.enter_context(quiet_lightning())
        return _fit(model, train, valid, spec, None if folder is None else Path(folder), seed, identity, progress,
                    _Epochs(spec.patience, _settled(model, spec), tell), device, fixed)


def _settled(model: nn.Module, spec: FitSpec) -> float:
    """Step by which the slowest average that validation reads has forgotten 95 % of its start."""
    momenta = [m.momentum for m in model.modules() if isinstance(m, _NORMS) and m.momentum]
    return 3 / min([1 - spec.average, *momenta]) if spec.average or momenta else 0.0


def _fit(model: nn.Module, train: DataLoader, valid: DataLoader, spec: FitSpec, folder: Path | None, seed: int,
         identity: str, progress: bool, epochs: _Epochs, device: torch.device, fixed: list[nn.Module]
         ) -> tuple[nn.Module, pd.DataFrame]:
    trainee = _Trainee(model, spec, seed, identity, fixed).train()
    callbacks: list[Callback] = [epochs]
    if folder is not None:
        callbacks.append(ModelCheckpoint(folder, filename="last", save_top_k=1, every_n_epochs=1,
                                         enable_version_counter=False, save_on_train_epoch_end=True))
    if progress:
        callbacks.append(RichProgressBar())
    n_steps = -(-len(train) // (spec.n_devices * spec.accumulate))
    trainer = L.Trainer(  # precision is ours (`_Trainee._autocast`): Lightning's refuses to clip a fused optimizer
        max_epochs=spec.epochs if spec.steps is None else -(-spec.steps // n_steps),
        accelerator="gpu" if device.type == "cuda" else "cpu", devices=spec.n_devices,
        strategy="ddp_spawn" if spec.n_devices > 1 else "auto", precision="32-true",
        accumulate_grad_batches=spec.accumulate, gradient_clip_val=spec.gradient_clip, callbacks=callbacks,
        logger=False, enable_checkpointing=folder is not None, enable_progress_bar=progress, enable_model_summary=False,
        num_sanity_val_steps=0, use_distributed_sampler=False)
    resume = None if folder is None else _checked(folder / "last.ckpt")
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(trainee, train, valid, ckpt_path=resume, weights_only=True)
    except SystemExit as stop:  # what Lightning makes of Ctrl-C, after it has switched Ctrl-C off
        signal.signal(signal.SIGINT, on_interrupt)
        raise KeyboardInterrupt from stop
    if folder is not None and spec.n_devices > 1:  # processes of their own hand nothing back
        saved = torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)
        epochs.load_state_dict(saved["callbacks"][epochs.state_key])
    model.load_state_dict(epochs.best)
    return model.cpu().eval(), pd.DataFrame(epochs.rows)


def _checked(checkpoint: Path) -> Path | None:
    """The checkpoint to continue from, or None when there is none."""
    if not checkpoint.exists():
        return None
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever an unpickler may raise
        raise CheckpointError(f"{checkpoint} is damaged ({type(error).__name__}: {error}); remove its folder, "
                              "training then starts anew") from error
    return checkpoint


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning from advising, telling what it found on this machine, and advertising; nobody asked."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [(logging.getLogger(n), logging.getLogger(n).level) for n in names]
    try:
        for logger, _ in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in loggers:
            logger.setLevel(level)


# ---- transfer


@contextmanager
def _frozen(model: nn.Module, patterns: tuple[str, ...]) -> Iterator[list[nn.Module]]:
    """Keep the parameters that match from being trained; gives the batch norms that match."""
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in before):
            parts = {name.split(".")[0] + ".*" * ("." in name) for name in before}
            raise ConfigError(f"freeze: no parameter is called {pattern!r} (a shell pattern matches whole names, of "
                              f"which {next(iter(before))!r} is the first); {nearest(pattern, parts)}")

    def matches(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in patterns)

    if before and all(matches(name) or not trained for name, trained in before.items()):
        raise ConfigError(f"freeze={patterns} leaves nothing to train: it matches all {len(before)} parameters")
    try:
        for name, p in model.named_parameters():
            p.requires_grad_(before[name] and not matches(name))
        yield [m for name, m in model.named_modules() if isinstance(m, _NORMS) and matches(f"{name}.weight")]
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(before[name])


def _last_layer(model: nn.Module, n_targets: int | None = None) -> tuple[str, nn.Linear | nn.Conv1d] | None:
    """Name and module of the last linear layer or convolution, of those with one output a target."""
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv1d)]
    fitting = [(name, m) for name, m in layers if n_targets is None or m.weight.shape[0] == n_targets]
    return fitting[-1] if fitting else None


def start_at_mean(model: nn.Module, mean: Float[np.ndarray, " T"]) -> bool:
    """Set the bias of the layer that yields the targets to their mean, so that training need not find it.

    Parameters
    ----------
    model
        Changed in place: the last linear layer or convolution with one output a target, if it has a bias.
    mean
        Of the training targets, on the scale of that layer's output (before a sigmoid or softplus: its inverse of
        the mean). NaN, for a target that was not measured, leaves its bias as it is.

    Returns
    -------
    bool
        Whether there was such a layer.
    """
    found = _last_layer(model, len(mean))
    if found is None or found[1].bias is None:
        return False
    bias = found[1].bias
    with torch.no_grad():
        known = torch.from_numpy(np.asarray(mean, np.float32)).to(bias)
        bias.copy_(torch.where(known.isnan(), bias, known))
    return True


def scale_head(model: nn.Module, scale: Float[np.ndarray, " T"], shift: Float[np.ndarray, " T"],
               X: Float[Tensor, "B 4 L"]) -> bool:
    """Change the units of what a model predicts: afterwards it gives ``scale · prediction + shift``.

    Parameters
    ----------
    model
        Changed in place: the last linear layer or convolution with one output a target. A model in which that is
        not the last thing that happens is left as it is.
    scale, shift
        Of each target.
    X
        Some sequences that the model reads; the change is tried on them.

    Returns
    -------
    bool
        Whether the units were changed.
    """
    found = _last_layer(model, len(scale))
    if found is None or found[1].bias is None:
        return False
    weight, bias = found[1].weight, found[1].bias
    kept = weight.detach().clone(), bias.detach().clone()
    a, b = (torch.from_numpy(np.asarray(v, np.float32)).to(bias) for v in (scale, shift))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            before = model(X)
            weight.mul_(a.reshape(-1, *[1] * (weight.ndim - 1)))
            bias.mul_(a).add_(b)
            after = model(X)
            exact = isinstance(after, Tensor) and after.ndim == 2 and torch.allclose(
                after, before * a + b, rtol=1e-3, atol=1e-4 * float(a.abs().max()))
            if not exact:
                weight.copy_(kept[0])
                bias.copy_(kept[1])
    finally:
        model.train(training)
    return exact


def new_head(model: nn.Module, n_targets: int) -> nn.Module:
    """Replace the layer that yields the targets by a fresh one, to train a model on for other targets.

    Parameters
    ----------
    model
        Changed in place. Its attribute ``n_targets``, if it has one, says which layer that is (the last linear layer
        or convolution with so many outputs) and is set anew; otherwise the last of all is taken.
    n_targets
        Of the new data. To save the model, give the registry this number among its arguments.

    Returns
    -------
    Module
        The model.

    Raises
    ------
    SchemaError
        When no such layer is found.
    """
    old = getattr(model, "n_targets", None)
    found = _last_layer(model, old)
    if found is None:
        raise SchemaError(f"{type(model).__name__} has no linear layer or convolution with {old} outputs; create it "
                          f"with n_targets={n_targets} and load the other weights")
    name, layer = found
    fresh = copy.deepcopy(layer)
    fresh.weight = nn.Parameter(layer.weight.new_empty(n_targets, *layer.weight.shape[1:]))
    if layer.bias is not None:
        fresh.bias = nn.Parameter(layer.bias.new_empty(n_targets))
    if isinstance(fresh, nn.Linear):
        fresh.out_features = n_targets
    else:
        fresh.out_channels = n_targets
    fresh.reset_parameters()
    model.set_submodule(name, fresh)
    if old is not None:
        setattr(model, "n_targets", n_targets)  # noqa: B010 - a plain number, which modules are not typed to hold
    return model
