"""Optimizer and schedule by name, precision, gradient accumulation and clipping: from a loss to new weights."""

from __future__ import annotations

import functools
import inspect
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.optim import lr_scheduler

from plifctl.config import choices
from plifctl.config.problems import format_value
from plifctl.config.training import TrainSpec
from plifctl.errors import UsageError, did_you_mean

_OPTIMIZERS: dict[choices.Optimizer, type[torch.optim.Optimizer]] = {
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
_SCHEDULES: dict[choices.Schedule, type[lr_scheduler.LRScheduler]] = {
    "exponential": lr_scheduler.ExponentialLR,
    "linear": lr_scheduler.LinearLR,
    "multi-step": lr_scheduler.MultiStepLR,
    "polynomial": lr_scheduler.PolynomialLR,
    "step": lr_scheduler.StepLR,
}
_NOT_OPTIONS = {"params", "optimizer", "lr", "last_epoch", "fused", "foreach", "capturable", "differentiable"}
HALF_TYPES = dict(zip(choices.HALF_PRECISIONS, (torch.bfloat16, torch.float16), strict=True))
"""Types of the tensors in the precisions of 16 bits."""


def learning_rate(train: TrainSpec, epoch: int) -> float:
    """Returns the learning rate of an epoch, counted from 0: a function of the spec, so that resuming needs no state.

    With a cosine of period 64 the rate is 0 at epoch 64 and full again at 128.

    Raises:
        UsageError: Torch's scheduler rejects ``train.schedule_options``.

    Source: supplement F; the authors' code steps ``CosineAnnealingLR(T_max=64)`` past 64 epochs.
    """
    if train.schedule in _SCHEDULES:
        options = json.dumps(train.schedule_options)
        return _torch_rates(train.schedule, options, train.lr, max(epoch, train.epochs))[epoch]
    if train.schedule == "constant":
        return train.lr
    position = epoch % train.cosine_period if train.schedule == "cosine-restarts" else epoch
    return train.lr * (1 + math.cos(math.pi * position / train.cosine_period)) / 2


@functools.lru_cache(maxsize=8)
def _torch_rates(schedule: choices.Schedule, options: str, lr: float, last: int) -> list[float]:
    """Returns the rates of epochs 0 to ``last`` by torch's own scheduler."""
    given = json.loads(options)
    rates = []
    with _usage_errors("schedule", schedule, _SCHEDULES[schedule], given):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
        scheduler = _SCHEDULES[schedule](optimizer, **given)
        for _ in range(last + 1):
            rates.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()  # schedulers warn without it
            scheduler.step()
    return rates


def check_options(train: TrainSpec) -> None:
    """Checks the options of optimizer and schedule before a training begins: by a step, and the rates of all epochs.

    Raises:
        UsageError: An option is unknown or missing, has another type than torch's, or a value that torch rejects.
    """
    kind, options = _OPTIMIZERS[train.optimizer], train.optimizer_options
    _check_names_and_types("optimizer", train.optimizer, kind, options)
    if train.schedule in _SCHEDULES:
        _check_names_and_types("schedule", train.schedule, _SCHEDULES[train.schedule], train.schedule_options)
    elif train.schedule_options:
        raise UsageError(f"train.schedule_options: {train.schedule} has no options", hint="omit them")
    if options:  # torch checks few values itself; their use raises errors of many types
        parameter = nn.Parameter(torch.zeros(1))
        parameter.grad = torch.zeros(1)
        with _usage_errors("optimizer", train.optimizer, kind, options):
            kind([parameter], lr=train.lr, **options).step()  # type: ignore[call-arg]
    learning_rate(train, 0)


def _options_of(kind: type[Any]) -> dict[str, inspect.Parameter]:
    """Returns the options of an optimizer or scheduler of torch, by name."""
    signature = inspect.signature(kind).parameters
    return {key: parameter for key, parameter in signature.items() if key not in _NOT_OPTIONS}


def _check_names_and_types(field: str, name: str, kind: type[Any], options: dict[str, Any]) -> None:
    known = _options_of(kind)
    for key, value in options.items():
        path = f"train.{field}_options.{key}"
        if key not in known:
            raise UsageError(f"{path}: {name} has no such option", hint=did_you_mean(key, known))
        expected = _expected_type(known[key])
        try:
            TypeAdapter(expected).validate_python(value, strict=True)
        except ValidationError:
            raise UsageError(f"{path}: found {format_value(value)}, expected {_TYPES[expected]}") from None
    for key, parameter in known.items():
        if parameter.default is inspect.Parameter.empty and key not in options:
            hint = f"--set train.{field}_options.{key}=…"
            raise UsageError(f"train.{field}_options.{key} is missing: {name} requires it", hint=hint)


_TYPES: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list[int]: "a [list] of integers",
    list[float]: "a [list] of numbers",
}
"""Types of options, in words."""


def _expected_type(parameter: inspect.Parameter) -> Any:
    """Returns the type of an option of torch, a key of ``_TYPES``, by its default or its annotation."""
    annotation = str(parameter.annotation)
    if isinstance(parameter.default, bool):
        return bool
    if isinstance(parameter.default, tuple) or "Iterable" in annotation:
        return list[int] if "int" in annotation else list[float]
    return int if "int" in annotation else float


@contextmanager
def _usage_errors(field: str, name: str, kind: type[Any], options: dict[str, Any]) -> Iterator[None]:
    """Turns an error of torch within the block, about values of options, into a UsageError."""
    try:
        yield
    except Exception as error:
        message = f"train.{field}_options: {name} rejects {options}: {error}"
        raise UsageError(message, hint=f"the options of {name}: {', '.join(_options_of(kind))}") from None


@contextmanager
def float32_products(train: TrainSpec, device: torch.device) -> Iterator[None]:
    """Allows or forbids TF32 in a GPU's float32 products within the block, as ``train.precision`` says.

    It is a setting of the process, because the backward pass runs in other threads. Torch's default allows TF32 in
    convolutions, but not in matrix products.
    """
    if device.type != "cuda":
        yield
        return
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "tf32" if train.precision == "tf32" else "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


@contextmanager
def autocast(train: TrainSpec, device: torch.device) -> Iterator[None]:
    """Gives convolutions and matrix products the precision ``train.precision`` within the block.

    Neurons, batch norm's statistics and losses are float32 in any case.
    """
    dtype = HALF_TYPES.get(train.precision)
    with (
        float32_products(train, device),
        torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None),
    ):
        yield


def graph_unsupported_reason(train: TrainSpec, device: torch.device, processes: int) -> str | None:
    """Returns why a training step cannot be recorded as a CUDA graph; None where it can."""
    if device.type != "cuda":
        return f"CUDA graphs need a GPU, the device is {device}"
    if processes > 1:
        return "ranks exchange gradients within a step"
    if train.accumulate > 1:
        return "a step has several batches (train.accumulate)"
    if train.precision == "fp16":
        return "fp16 checks every step for an overflow; bf16 does not"
    if not {"fused", "capturable"} <= inspect.signature(_OPTIMIZERS[train.optimizer]).parameters.keys():
        return f"torch's {train.optimizer} cannot be captured; adam can"
    return None


def _as_stored(parameter: nn.Parameter, device: torch.device) -> nn.Parameter:
    """Returns the parameter as the optimizer gets it: on a CPU a matrix that is stored by columns is transposed.

    It shares the memory, so that a step updates the model's. Torch's fused optimizers walk through memory; they copy a
    gradient that is not contiguous first, which takes twice as long as the step itself.
    """
    if device.type == "cpu" and parameter.dim() == 2 and not parameter.is_contiguous() and parameter.mT.is_contiguous():
        return nn.Parameter(parameter.detach().mT)
    return parameter


class Optimizer:
    """Updates weights from gradients.

    Args:
        model: The module to train; frozen parameters stay as they are, without weight decay.
        train: Settings of the training.
        device: Device of the module.
        graph: Make steps that a CUDA graph can record: the learning rate is a tensor on the GPU.

    Raises:
        UsageError: Unknown or rejected options of the optimizer or the schedule.
    """

    def __init__(self, model: nn.Module, train: TrainSpec, device: torch.device, *, graph: bool = False) -> None:
        check_options(train)
        self._on_gpu = device.type == "cuda"
        self._capturable = graph and self._on_gpu
        self.train = train
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        stored = [_as_stored(parameter, device) for parameter in self._parameters]
        pairs = zip(self._parameters, stored, strict=True)
        self._transposed = {index: pair for index, pair in enumerate(pairs) if pair[0] is not pair[1]}
        kind = _OPTIMIZERS[train.optimizer]
        # a step that fp16 skips would leave torch's fused SGD with momentum that was never set
        is_unsafe = train.optimizer == "sgd" and train.precision == "fp16"
        self._fused = "fused" in inspect.signature(kind).parameters and not is_unsafe
        fused = {"fused": True} if self._fused else {}
        options = {**train.optimizer_options, **fused}
        self._optimizer: torch.optim.Optimizer = kind(stored, lr=train.lr, **options)  # type: ignore[call-arg]
        for group in self._optimizer.param_groups if self._capturable else ():
            group.update(capturable=True, lr=torch.tensor(train.lr, dtype=torch.float32, device=device))
        self._scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
        # 1 from the first step with gradients that are not finite
        self._failed = torch.zeros((), dtype=torch.float32, device=device)
        self._good_steps = torch.zeros((), dtype=torch.int64, device=device)  # before that step, since the last report
        if self._fused and not self._scaler.is_enabled():
            self._optimizer.found_inf = self._failed  # type: ignore[attr-defined] # where torch's own scaler puts it

    def begin_epoch(self, epoch: int) -> None:
        """Sets the learning rate of an epoch, counted from 0."""
        rate = learning_rate(self.train, epoch)
        for group in self._optimizer.param_groups:
            if self._capturable:
                group["lr"].fill_(rate)
            else:  # on a GPU rounded as in a recorded step, whose rates are float32
                group["lr"] = torch.tensor(rate, dtype=torch.float32).item() if self._on_gpu else rate

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to the accumulated ones."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def unscale(self) -> None:
        """Removes the loss scale of fp16 from the gradients; to be called before they are read."""
        self._lend_gradients()
        self._scaler.unscale_(self._optimizer)

    def step(self, norm: Tensor) -> None:
        """Clips the gradients, makes a step and clears them; a step that fails leaves the weights unchanged.

        A step fails if its gradients are not finite. Fused optimizers skip it on the device itself, without waiting;
        the others wait. In fp16 the scaler skips it and halves the scale, and training continues with the next step.

        Args:
            norm: Norm of all gradients together.
        """
        self._lend_gradients()
        if self.train.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self._parameters, self.train.clip_norm, norm)
        if self._scaler.is_enabled():
            self._good_steps += 1
        else:
            self._failed.copy_(torch.maximum(self._failed, (~norm.isfinite()).to(self._failed)))
            self._good_steps += self._failed == 0
        if self._fused or self._scaler.is_enabled() or not self._failed:
            self._scaler.step(self._optimizer)
        self._scaler.update()
        self.zero_grad()

    def zero_grad(self) -> None:
        """Clears the accumulated gradients."""
        self._optimizer.zero_grad()
        for parameter in self._parameters:
            parameter.grad = None

    def _lend_gradients(self) -> None:
        """Gives the optimizer's parameters the gradients of the model's, which it may change in place."""
        for parameter, stored in self._transposed.values():
            stored.data = parameter.detach().mT  # the model may have been converted since
            if parameter.grad is not None:
                parameter.grad = parameter.grad.mT.contiguous().mT
            stored.grad = None if parameter.grad is None else parameter.grad.mT

    def _transpose_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns the state of torch's optimizer with the shapes of the model's parameters, or back."""
        held = {
            index: {
                name: value.mT if isinstance(value, Tensor) and value.dim() == 2 else value
                for name, value in values.items()
            }
            if index in self._transposed
            else values
            for index, values in state["state"].items()
        }
        return {**state, "state": held}

    def failure(self) -> Tensor:
        """Returns whether a step failed, and its number, counted from 0 since the last call: float64 ``[2]``.

        Nothing waits for the device, except in fp16, where every step does. In fp16 the last step counts as failed if
        the scale has fallen below 1: a smaller scale would not help.
        """
        failed, which = self._failed, self._good_steps
        if self._scaler.is_enabled():
            failed, which = torch.full_like(failed, self._scaler.get_scale() < 1.0), which - 1
        report = torch.stack([failed.double(), which.double()])
        self._good_steps.zero_()
        return report

    def state(self) -> dict[str, Any]:
        """Returns the state between two steps, when no gradients are accumulated; equal with a graph and without."""
        optimizer = self._transpose_state(self._optimizer.state_dict())
        if self._capturable:
            groups = optimizer["param_groups"]
            optimizer["param_groups"] = [{**group, "capturable": False, "lr": float(group["lr"])} for group in groups]
        return {"optimizer": optimizer, "scaler": self._scaler.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state that :meth:`state` returned."""
        rates = [group["lr"] for group in self._optimizer.param_groups]
        self._optimizer.load_state_dict(self._transpose_state(state["optimizer"]))
        self._take_layout_of_parameters()
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True) if self._capturable else ():
            group.update(capturable=True, lr=rate)  # begin_epoch sets its value
        self._scaler.load_state_dict(state["scaler"])

    def _take_layout_of_parameters(self) -> None:
        """Lays the state out in memory as the parameters are.

        Fused optimizers walk through parameter, gradient and state in the order of memory. In checkpoints of 0.1.0
        the weights of fully connected layers have another order.
        """
        for parameter, held in self._optimizer.state.items():
            for name, value in held.items():
                same_shape = isinstance(value, Tensor) and value.shape == parameter.shape
                if same_shape and value.stride() != parameter.stride():
                    held[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
