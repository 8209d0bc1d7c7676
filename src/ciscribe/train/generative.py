"""Train a generator of sequences: one small loop for likelihoods, denoisers and adversaries.

AdamW, warm-up and cosine, clipped gradients, a moving average of the weights, early stopping on the validation loss.
Random numbers depend on the seed alone and those of the caller are left as they were.
"""

import copy
import math
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import lightning as L
import pandas as pd
import torch
from jaxtyping import Float, Int64, UInt8
from lightning.pytorch.callbacks import RichProgressBar
from torch import Tensor, nn

from ciscribe.errors import ConfigError, DivergedError, SchemaError
from ciscribe.oracle import resolve_device
from ciscribe.train.fit import quiet_lightning


class Examples(NamedTuple):
    """Sequences to learn from.

    Parameters
    ----------
    codes
        uint8 ``(B, L)``, A C G T = 0..3.
    labels
        What is known of each, int64 ``(B, T)``; ``T`` may be 0.
    """

    codes: UInt8[Tensor, "B L"]
    labels: Int64[Tensor, "B T"]


@runtime_checkable
class Generative(Protocol):
    """A module that says how badly it explains a batch; what is minimized, and compared on validation."""

    def loss(self, batch: Examples) -> Float[Tensor, ""]:
        """One number, lower is better; its randomness comes from PyTorch's own generator."""
        ...


@runtime_checkable
class Adversarial(Generative, Protocol):
    """A generator and its critic, each with a loss of its own; `loss` is compared on validation only."""

    def parts(self) -> tuple[nn.Module, nn.Module]:
        """Generator and critic, which share no weights."""
        ...

    def critic_loss(self, batch: Examples) -> Float[Tensor, ""]:
        """Minimized by the critic in every step."""
        ...

    def generator_loss(self, batch: Examples) -> Float[Tensor, ""]:
        """Minimized by the generator in every `GenerativeSpec.n_critic`-th step."""
        ...


@dataclass(frozen=True)
class GenerativeSpec:
    """How a generator is trained.

    Parameters
    ----------
    epochs, batch_size
        Passes over the sequences, and sequences a step.
    learning_rate, betas, weight_decay
        AdamW.
    warmup
        Fraction of all steps in which the rate rises; then it falls to a tenth along half a cosine. An adversary
        keeps its rate.
    gradient_clip
        Largest norm of the gradient; 0 does not clip.
    average
        Decay a step of the moving average of the weights that is validated and returned; 0 switches it off. The
        first steps are forgotten faster, as (1 + step) / (10 + step).
    patience
        Epochs without a better validation loss before training stops; None never stops early.
    n_critic
        Steps of the critic for one of the generator; only for an adversary.
    device
        None takes a GPU when there is one.
    """

    epochs: int = 20
    batch_size: int = 64
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    warmup: float = 0.05
    gradient_clip: float = 1.0
    average: float = 0.0
    patience: int | None = None
    n_critic: int = 5
    device: str | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "n_critic"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is at least 1; got {getattr(self, name)}")
        if not 0 <= self.average < 1:
            raise ConfigError(f"average is a decay in [0, 1), 0 for none; got {self.average}")


class _Batches:
    """Examples in batches, in a new order each time; PyTorch's generator draws it."""

    def __init__(self, examples: Examples, size: int, shuffled: bool):
        self.examples, self.size, self.shuffled = examples, size, shuffled

    def __len__(self) -> int:
        return math.ceil(len(self.examples.codes) / self.size)

    def __iter__(self) -> Iterator[Examples]:
        n = len(self.examples.codes)
        order = torch.randperm(n) if self.shuffled else torch.arange(n)
        for rows in order.split(self.size):
            yield Examples(self.examples.codes[rows], self.examples.labels[rows])


class _Trainee(L.LightningModule):
    """A generator in training."""

    def __init__(self, module: nn.Module, spec: GenerativeSpec, seed: int):
        super().__init__()
        self.module, self.spec, self.seed = module, spec, seed
        self.averaged = copy.deepcopy(module).requires_grad_(False) if spec.average else None
        self.adversary = module if isinstance(module, Adversarial) else None
        self.automatic_optimization = self.adversary is None
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.lowest, self.waited, self.n_steps = math.inf, 0, 0
        self._sums: dict[str, tuple[float, int]] = {}

    def training_step(self, batch: Examples, i_batch: int) -> Tensor | None:
        if self.adversary is None:
            loss = cast(Generative, self.module).loss(batch)
            self._note("train_loss", loss, batch)
            return loss
        generator, critic = self.adversary.parts()
        of_generator, of_critic = cast(list[Any], self.optimizers())
        self._descend(of_critic, critic, self.adversary.critic_loss(batch), "train_critic", batch)
        if (self.n_steps + 1) % self.spec.n_critic == 0:
            self._descend(of_generator, generator, self.adversary.generator_loss(batch), "train_generator", batch)
        return None

    def _descend(self, optimizer: Any, part: nn.Module, loss: Tensor, name: str, batch: Examples) -> None:
        self._note(name, loss, batch)
        optimizer.zero_grad()
        self.manual_backward(loss, inputs=list(part.parameters()))  # the other part gets no gradient
        if self.spec.gradient_clip:
            nn.utils.clip_grad_norm_(part.parameters(), self.spec.gradient_clip)
        optimizer.step()

    def _note(self, name: str, loss: Tensor, batch: Examples) -> None:
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(f"{name} became {value} at step {self.n_steps}; lower learning_rate")
        total, n = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + value * len(batch.codes), n + len(batch.codes)

    def on_train_batch_end(self, outputs: Any, batch: Examples, batch_idx: int) -> None:
        self.n_steps += 1
        if self.averaged is not None:
            decay = min(self.spec.average, (1 + self.n_steps) / (10 + self.n_steps))
            with torch.no_grad():
                for mine, theirs in zip(self.averaged.parameters(), self.module.parameters(), strict=True):
                    mine.lerp_(theirs, 1 - decay)

    def validation_step(self, batch: Examples, i_batch: int) -> None:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # the same noise in every epoch, so that they compare
            torch.manual_seed(self.seed * 1_000_003 + i_batch)
            self._note("valid_loss", cast(Generative, self.averaged or self.module).loss(batch), batch)

    def on_train_epoch_end(self) -> None:
        figures = {name: total / n for name, (total, n) in self._sums.items()}
        self._sums = {}
        self.rows.append({"epoch": float(self.current_epoch)} | figures)
        error = figures.get("valid_loss", -math.inf)  # without validation the last epoch is kept
        if error < self.lowest or error == -math.inf:
            self.lowest, self.waited = error, 0
            weights = (self.averaged or self.module).state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}
        else:
            self.waited += 1
        if self.spec.patience is not None and self.waited >= self.spec.patience:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        s = self.spec

        def adam(part: nn.Module) -> torch.optim.AdamW:
            trained = [p for p in part.parameters() if p.requires_grad]
            return torch.optim.AdamW([{"params": [p for p in trained if p.ndim > 1], "weight_decay": s.weight_decay},
                                      {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0}],
                                     lr=s.learning_rate, betas=s.betas, fused=True)

        if self.adversary is not None:
            return [adam(part) for part in self.adversary.parts()]
        optimizer = adam(self.module)
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warm = max(1, int(s.warmup * total))

        def rate(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit_generator(module: nn.Module, train: Examples, valid: Examples | None = None,
                  spec: GenerativeSpec = GenerativeSpec(), *,
                  seed: int = 0, progress: bool = False) -> tuple[nn.Module, pd.DataFrame]:
    """Train a generator of sequences, and give it back with the weights of its best epoch and the log.

    Parameters
    ----------
    module
        `Generative` or `Adversarial`; trained in place.
    train, valid
        Sequences to learn from, and to compare epochs by. Without `valid` the last epoch is kept.
    spec
        The plan.
    seed
        Of order and noise.
    progress
        Show a bar.

    Returns
    -------
    module, DataFrame
        On the CPU, in evaluation mode. The log has one row an epoch: ``epoch``, ``train_loss`` (of an adversary:
        ``train_critic, train_generator``) and, with `valid`, ``valid_loss``; means over sequences.

    Raises
    ------
    DivergedError
        When a loss is no longer finite.
    SchemaError
        Without sequences, or for a module without ``loss``.
    ConfigError
        For `patience` without `valid`.
    """
    if not isinstance(module, Generative):
        raise SchemaError(f"{type(module).__name__} has no method loss(batch), which fit_generator minimizes")
    if not len(train.codes) or (valid is not None and not len(valid.codes)):
        raise SchemaError("there are no sequences to train or to validate on")
    if spec.patience is not None and valid is None:
        raise ConfigError(f"patience={spec.patience} needs sequences to validate on; give some or leave patience None")
    device = resolve_device(spec.device)
    trainee = _Trainee(module, spec, seed)
    clip = spec.gradient_clip if trainee.automatic_optimization and spec.gradient_clip else None
    on_interrupt = signal.getsignal(signal.SIGINT)
    with quiet_lightning(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        trainer = L.Trainer(max_epochs=spec.epochs, accelerator="gpu" if device.type == "cuda" else "cpu", devices=1,
                            gradient_clip_val=clip, logger=False, enable_checkpointing=False,
                            callbacks=[RichProgressBar()] if progress else [], enable_progress_bar=progress,
                            enable_model_summary=False, num_sanity_val_steps=0)
        try:
            trainer.fit(trainee.train(), _Batches(train, spec.batch_size, shuffled=True),
                        None if valid is None else _Batches(valid, spec.batch_size, shuffled=False))
        except SystemExit as stop:  # what Lightning makes of Ctrl-C, after it has switched Ctrl-C off
            signal.signal(signal.SIGINT, on_interrupt)
            raise KeyboardInterrupt from stop
    module.load_state_dict(trainee.best)
    module.zero_grad(set_to_none=True)
    return module.cpu().eval(), pd.DataFrame(trainee.rows)
