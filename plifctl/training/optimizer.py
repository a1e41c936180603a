"""From a loss to new weights: optimiser and schedule by name, precision, accumulation, clipping."""

from __future__ import annotations

import functools
import inspect
import json
import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from plifctl.config.training import TrainSpec
from plifctl.errors import UsageError, did_you_mean

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adadelta": torch.optim.Adadelta,
    "adagrad": torch.optim.Adagrad,
    "adam": torch.optim.Adam,
    "adamax": torch.optim.Adamax,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
_SCHEDULES: dict[str, type[lr_scheduler.LRScheduler]] = {
    "exponential": lr_scheduler.ExponentialLR,
    "linear": lr_scheduler.LinearLR,
    "multi-step": lr_scheduler.MultiStepLR,
    "polynomial": lr_scheduler.PolynomialLR,
    "step": lr_scheduler.StepLR,
}
_NOT_OPTIONS = {"params", "optimizer", "lr", "last_epoch", "fused", "foreach", "capturable", "differentiable"}
_PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


def learning_rate(train: TrainSpec, epoch: int) -> float:
    """Returns the learning rate of an epoch, counted from 0: of the spec alone, so resuming needs no state.

    With a cosine of period 64 the rate is 0 at epoch 64 and full again at 128.

    Raises:
        UsageError: Torch's scheduler does not take ``train.schedule_options``.

    Source: supplement F; the published code steps ``CosineAnnealingLR(T_max=64)`` past 64 epochs.
    """
    if train.schedule in _SCHEDULES:
        options = json.dumps(train.schedule_options)
        return _torch_rates(train.schedule, options, train.lr, max(epoch, train.epochs))[epoch]
    if train.schedule == "constant":
        return train.lr
    position = epoch % train.cosine_period if train.schedule == "cosine-restarts" else epoch
    return train.lr * (1 + math.cos(math.pi * position / train.cosine_period)) / 2


@functools.lru_cache(maxsize=8)
def _torch_rates(schedule: str, options: str, lr: float, last: int) -> list[float]:
    """The rates of epochs 0 to ``last`` by torch's own scheduler."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    scheduler = _made("schedule", schedule, _SCHEDULES[schedule], optimizer, json.loads(options))
    rates = []
    for _ in range(last + 1):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()  # schedulers warn without it
        scheduler.step()
    return rates


def check_options(train: TrainSpec) -> None:
    """Checks that optimiser and schedule have the options given, before anything is begun; not whether values may be.

    Raises:
        UsageError: One of them does not have one.
    """
    _check("optimizer", train.optimizer, _OPTIMIZERS[train.optimizer], train.optimizer_options)
    if train.schedule in _SCHEDULES:
        _check("schedule", train.schedule, _SCHEDULES[train.schedule], train.schedule_options)
    elif train.schedule_options:
        raise UsageError(f"train.schedule_options: {train.schedule} has none", hint="leave them out")


def _options_of(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """The options that an optimiser or scheduler of torch has, by name."""
    signature = inspect.signature(kind).parameters
    return {key: parameter for key, parameter in signature.items() if key not in _NOT_OPTIONS}


def _check(field: str, name: str, kind: type[Any], options: dict[str, Any]) -> None:
    known = _options_of(kind)
    for key in options:
        if key not in known:
            raise UsageError(f"train.{field}_options.{key}: {name} has no such option", hint=did_you_mean(key, known))
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            hint = f"--set train.{field}_options.{key}=…"
            raise UsageError(f"train.{field}_options.{key} is missing: {name} needs it", hint=hint)


def _made(field: str, name: str, kind: type[Any], first: Any, options: dict[str, Any], **more: Any) -> Any:
    """Makes an optimiser or scheduler of torch, of options that :func:`check_options` let pass."""
    try:
        return kind(first, **options, **more)
    except Exception as error:  # torch checks little, and what is wrong shows where it is used
        said = f"train.{field}_options: {name} cannot be made with {options}: {error}"
        raise UsageError(said, hint=f"{name} takes {', '.join(_options_of(kind))}") from None


def autocast(train: TrainSpec, device: torch.device) -> AbstractContextManager[None]:
    """Returns the context in which convolutions and matrix products have the precision ``train.precision``.

    Neurons, batch norm's statistics and losses have float32 whatever it is. Whether a GPU may use TF32 is set for the
    whole process, as backward runs outside of the context. torch's own default has it in convolutions, not elsewhere.
    """
    if device.type == "cuda":
        products = "tf32" if train.precision == "tf32" else "ieee"
        torch.backends.cuda.matmul.fp32_precision = products
        torch.backends.cudnn.conv.fp32_precision = products  # type: ignore[attr-defined]
    dtype = _PRECISIONS.get(train.precision)
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def graph_unsupported_reason(train: TrainSpec, device: torch.device, processes: int) -> str | None:
    """Returns why a training step cannot be recorded as a CUDA graph; None where it can."""
    if device.type != "cuda":
        return f"CUDA graphs are for GPUs, not for {device}"
    if processes > 1:
        return "several processes exchange gradients within a step"
    if train.accumulate > 1:
        return "a step has several batches (train.accumulate)"
    if train.precision == "fp16":
        return "fp16 looks at every step whether it overflowed; bf16 does not"
    if not {"fused", "capturable"} <= inspect.signature(_OPTIMIZERS[train.optimizer]).parameters.keys():
        return f"{train.optimizer} of torch is not made for it; adam is"
    return None


class Optimizer:
    """Takes gradients to new weights.

    Args:
        model: What is trained.
        train: How.
        device: Where.
        graph: Make steps that a CUDA graph can hold: the learning rate is a tensor on the GPU.

    Raises:
        UsageError: Options that the optimiser or the schedule does not have.
    """

    def __init__(self, model: nn.Module, train: TrainSpec, device: torch.device, *, graph: bool = False) -> None:
        check_options(train)
        self._on_gpu = device.type == "cuda"
        self._capturable = graph and self._on_gpu
        self.train = train
        self._parameters = list(model.parameters())
        kind = _OPTIMIZERS[train.optimizer]
        self._fused = "fused" in inspect.signature(kind).parameters
        fused = {"fused": True} if self._fused else {}
        self._optimizer: torch.optim.Optimizer = _made(
            "optimizer", train.optimizer, kind, self._parameters, dict(train.optimizer_options), lr=train.lr, **fused
        )
        for group in self._optimizer.param_groups if self._capturable else ():
            group.update(capturable=True, lr=torch.tensor(train.lr, dtype=torch.float32, device=device))
        self._scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
        self._failed = torch.zeros((), device=device)  # 1 from the first step on whose gradients were not finite
        self._whole = torch.zeros((), dtype=torch.int64, device=device)  # steps before it, and since last asked
        if self._fused and not self._scaler.is_enabled():
            self._optimizer.found_inf = self._failed  # as torch's own scaler tells it
        learning_rate(train, 0)  # values that the schedule does not take are told now, not after an epoch

    def begin_epoch(self, epoch: int) -> None:
        """Sets the learning rate of an epoch, counted from 0."""
        rate = learning_rate(self.train, epoch)
        for group in self._optimizer.param_groups:
            if self._capturable:
                group["lr"].fill_(rate)
            else:  # on a GPU as it is in a recorded step, whose rates are float32
                group["lr"] = torch.tensor(rate, dtype=torch.float32).item() if self._on_gpu else rate

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to those that are there."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self) -> None:
        """Makes gradients what they are in float32; before anybody looks at them."""
        self._scaler.unscale_(self._optimizer)

    def step(self, norm: Tensor) -> None:
        """Clips the gradients, makes a step and forgets them; after a step that failed weights stay as they were.

        A step fails if its gradients are not finite. Fused optimisers leave it out on the device itself, and nothing
        waits; the others wait. In fp16 the scaler leaves it out and halves the scale, and the next one counts again.

        Args:
            norm: Of all gradients together.
        """
        if self.train.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self.train.clip_norm, norm)
        if self._scaler.is_enabled():
            self._whole += 1
        else:
            self._failed.copy_(torch.maximum(self._failed, (~norm.isfinite()).to(self._failed)))
            self._whole += self._failed == 0
        if self._fused or self._scaler.is_enabled() or not self._failed:
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self.forget_gradients()

    def forget_gradients(self) -> None:
        """Begins a step anew."""
        self._optimizer.zero_grad()

    def failure(self) -> Tensor:
        """Returns whether a step failed, and which one, counted from 0 since this was last asked: float64 ``[2]``.

        Nothing waits for the device, but in fp16, where every step does. There it is the last one, if the scale has
        fallen below 1: no scale helps then.
        """
        failed, which = self._failed, self._whole
        if self._scaler.is_enabled():
            failed, which = torch.full_like(failed, self._scaler.get_scale() < 1.0), which - 1
        found = torch.stack([failed.double(), which.double()])
        self._whole.zero_()
        return found

    def state(self) -> dict[str, Any]:
        """Returns what decides about the next steps, when no gradients wait; the same with a graph and without."""
        optimizer = self._optimizer.state_dict()
        if self._capturable:
            groups = optimizer["param_groups"]
            optimizer["param_groups"] = [{**group, "capturable": False, "lr": float(group["lr"])} for group in groups]
        return {"optimizer": optimizer, "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state that :meth:`state` gave."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(state["optimizer"])
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True) if self._capturable else ():
            group.update(capturable=True, lr=rate)  # begin_epoch fills it
        self._scaler.load_state_dict(state["scaler"])
