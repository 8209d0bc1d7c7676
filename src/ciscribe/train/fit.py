"""Train a model on a window store; the only place that knows Lightning.

AdamW, linear warm-up and cosine decay, early stopping on the validation error, one checkpoint an epoch. The
random numbers of an epoch depend on the seed and the epoch alone, so that a training that was killed and
resumed ends with the weights of one that was not.
"""

import copy
import logging
import math
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader

from ciscribe.data.windows import Batch
from ciscribe.errors import CheckpointError, DeviceError
from ciscribe.oracle import resolve_device
from ciscribe.sequence import one_hot_tensor
from ciscribe.train.losses import LossSpec, expression_loss


@dataclass(frozen=True)
class FitSpec:
    """How a model is trained.

    Parameters
    ----------
    epochs, batch_size
        Passes over the training genes, and genes a step.
    learning_rate, final_learning_rate, weight_decay, betas
        AdamW; the rate rises linearly over `warmup` (fraction of all steps) from a fiftieth and falls as a cosine
        to `final_learning_rate`. None: a fifth of `learning_rate`, as published.
    gradient_clip
        Largest norm of the gradient.
    average
        Decay of the moving average of the weights (per step) that is validated and saved; 0 switches it off.
    patience
        Epochs without a better validation error before training stops; None never stops early.
    max_shift
        Augmentation: windows move by up to this many bp.
    reverse_complement
        Augmentation: half of the windows, drawn anew each step, are read on the other strand. For windows that are
        not strand-aware, or when the direction of the gene shall not matter.
    loss
        Weights of the terms.
    precision
        ``auto``: bf16 on a GPU, else fp32.
    device
        None takes a GPU when there is one. `n_devices` of them (or, on the CPU, processes) train in parallel (DDP):
        each takes every n-th step's genes, so a step of the optimizer sees `batch_size` genes from each.
    n_devices, n_workers, n_threads
        Of GPUs; of reading processes; of CPU threads (None leaves PyTorch's choice).
    """

    epochs: int = 10
    batch_size: int = 8
    learning_rate: float = 5e-4
    final_learning_rate: float | None = None
    weight_decay: float = 1e-6
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.1
    gradient_clip: float = 1.0
    average: float = 0.0
    patience: int | None = None
    max_shift: int = 0
    reverse_complement: bool = False
    loss: LossSpec = field(default_factory=LossSpec)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str | None = None
    n_devices: int = 1
    n_workers: int = 0
    n_threads: int | None = None


class _Trainee(L.LightningModule):
    """A model in training: steps, optimizer, averaged weights."""

    def __init__(self, model: nn.Module, spec: FitSpec, seed: int, identity: str):
        super().__init__()
        self.model, self.spec, self.seed, self.identity = model, spec, seed, identity
        self.averaged = copy.deepcopy(model).requires_grad_(False) if spec.average else None
        self._observed: list[torch.Tensor] = []
        self._predicted: list[torch.Tensor] = []

    @property
    def best_guess(self) -> nn.Module:
        """The network that is validated and saved."""
        return self.averaged or self.model

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:  # Lightning leaves the epoch's own hook out in the first epoch after a resumption
            torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Batch, i_batch: int) -> torch.Tensor:
        if self.spec.reverse_complement:
            batch = _flip_half(batch)
        output = self.model(one_hot_tensor(batch.codes), **_extras(batch))
        terms = expression_loss(output, batch.targets, self.spec.loss)
        loss = torch.stack(list(terms.values())).sum()
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss.item()} at step {self.global_step}; "
                                     "lower learning_rate or check the signals for extreme values")
        size = len(batch.codes)
        for name, term in terms.items():
            self.log(f"train_{name}", term.detach(), on_step=False, on_epoch=True, batch_size=size)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, prog_bar=True, batch_size=size)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        if self.averaged is None:
            return
        step = 1.0 if self.trainer.global_step <= 1 else 1 - self.spec.average
        with torch.no_grad():
            for mine, theirs in zip(self.averaged.parameters(), self.model.parameters(), strict=True):
                mine.lerp_(theirs, step)
            for mine, theirs in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                mine.copy_(theirs)  # running statistics follow the model

    def validation_step(self, batch: Batch, i_batch: int) -> None:
        output = self.best_guess(one_hot_tensor(batch.codes), **_extras(batch))
        self._predicted.append(output["expression"].float())
        self._observed.append(batch.targets)

    def on_validation_epoch_end(self) -> None:
        predicted, observed = torch.cat(self._predicted), torch.cat(self._observed)
        self._predicted.clear()
        self._observed.clear()
        a, b = predicted - predicted.mean(0), observed - observed.mean(0)
        r = ((a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0)).clamp_min(1e-12)).mean()
        self.log("valid_mse", (predicted - observed).square().mean(), prog_bar=True, sync_dist=True)
        self.log("valid_pearson", r, prog_bar=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        s = self.spec
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": s.weight_decay},
                                       {"params": rest, "weight_decay": 0.0}], lr=s.learning_rate, betas=s.betas)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warm = max(1, int(s.warmup * total))
        last = s.learning_rate / 5 if s.final_learning_rate is None else s.final_learning_rate

        def factor(step: int) -> float:
            if step < warm:
                return 0.02 + 0.98 * step / warm
            fall = 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))
            return (last + (s.learning_rate - last) * fall) / s.learning_rate

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["identity"] = self.identity

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if checkpoint.get("identity") != self.identity:
            raise CheckpointError("the checkpoint belongs to another model, data set or training plan "
                                  f"({checkpoint.get('identity')}, this run is {self.identity}); "
                                  "use another run folder or remove its checkpoints/")


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


class _Log(Callback):
    """Keep the figures of each epoch, in the checkpoint too, and hand them to the caller."""

    def __init__(self, tell: Callable[[str], None] | None):
        self.tell = tell or (lambda line: None)
        self.rows: list[dict[str, float]] = []

    def __getstate__(self) -> dict[str, Any]:  # a process of its own (DDP) cannot call back, so it prints
        return self.__dict__ | {"tell": print}

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = list(state_dict["rows"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        m = {k: float(v) for k, v in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch} | m)
        self.tell(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: "
                  f"train loss {m.get('train_loss', np.nan):.4f}, "
                  f"validation MSE {m.get('valid_mse', np.nan):.4f}, r {m.get('valid_pearson', np.nan):.4f}")


def fit(model: nn.Module, train: DataLoader, valid: DataLoader, spec: FitSpec, *, folder: str | Path, seed: int = 0,
        identity: str = "", progress: bool = True, tell: Callable[[str], None] | None = None
        ) -> tuple[nn.Module, pd.DataFrame]:
    """Train, and give back the model of the best validation epoch and the log.

    Parameters
    ----------
    model
        Trained in place; the same object comes back with the best weights.
    train, valid
        From `ciscribe.data.windows.loader`.
    spec
        The plan.
    folder
        For checkpoints and the log. When it holds a checkpoint of the same `identity`, training continues there.
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
        The log has one row an epoch: ``epoch, train_loss, train_error, …, valid_mse, valid_pearson``.

    Raises
    ------
    DeviceError, CheckpointError
        A GPU that is absent; a checkpoint of another run.
    """
    folder = Path(folder)
    device = resolve_device(spec.device)
    if device.type == "cuda" and spec.n_devices > torch.cuda.device_count():
        raise DeviceError(f"{spec.n_devices} GPUs were asked for, PyTorch sees {torch.cuda.device_count()}")
    if spec.n_threads:
        torch.set_num_threads(spec.n_threads)
    trainee = _Trainee(model, spec, seed, identity)
    best = ModelCheckpoint(folder, filename="best", monitor="valid_mse", save_top_k=1, enable_version_counter=False)
    last = ModelCheckpoint(folder, filename="last", save_top_k=1, every_n_epochs=1, enable_version_counter=False,
                           save_on_train_epoch_end=True)
    log = _Log(tell)
    callbacks: list[Callback] = [log, best, last]
    if spec.patience is not None:
        callbacks.append(EarlyStopping("valid_mse", patience=spec.patience))
    if progress:
        callbacks.append(RichProgressBar())
    bf16 = spec.precision == "bf16" or (spec.precision == "auto" and device.type == "cuda")
    with _quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice about workers and log intervals, not for users of a workflow
        trainer = L.Trainer(
            max_epochs=spec.epochs, accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=spec.n_devices, strategy="ddp_spawn" if spec.n_devices > 1 else "auto",
            precision="bf16-mixed" if bf16 else "32-true", gradient_clip_val=spec.gradient_clip, callbacks=callbacks,
            logger=CSVLogger(folder, name="", version=""), enable_progress_bar=progress, enable_model_summary=False,
            num_sanity_val_steps=0, use_distributed_sampler=False)
        resume = _checked(folder / "last.ckpt")
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            trainer.fit(trainee, train, valid, ckpt_path=resume, weights_only=True)
        except SystemExit as stop:  # what Lightning makes of Ctrl-C, after it has switched Ctrl-C off
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from stop
    state = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    prefix = "averaged." if spec.average else "model."
    model.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    # processes of their own hand nothing back; what they kept is in the checkpoint
    rows = torch.load(folder / "last.ckpt", map_location="cpu", weights_only=True)["callbacks"][log.state_key]["rows"]
    return model.cpu().eval(), pd.DataFrame(rows)


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
def _quiet() -> Iterator[None]:
    """Lightning says what it found on this machine and advertises; a workflow's user did not ask."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    loggers = [(logging.getLogger(n), logging.getLogger(n).level) for n in names]
    try:
        for logger, _ in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in loggers:
            logger.setLevel(level)
