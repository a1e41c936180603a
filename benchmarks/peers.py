"""The peers' own code: SpikingJelly's and tonic's functions, data sets and layers, as a user would call them.

SpikingJelly's data set modules import torchvision and torchaudio, which do not load beside torch's CPU build. The
few functions needed are replaced here; none of them is measured.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from plifctl.snn.layers import Dropout, Pool
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer


class _DatasetFolder(Dataset[tuple[Any, int]]):
    """Replacement of torchvision's data set with one folder per class."""

    def __init__(
        self,
        root: Path,
        loader: Callable[[str], Any],
        extensions: tuple[str, ...],
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], int] | None = None,
    ) -> None:
        self.loader, self.transform, self.target_transform = loader, transform, target_transform
        classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        self.samples = [
            (str(path), label)
            for label, name in enumerate(classes)
            for path in sorted(Path(root, name).iterdir())
            if path.suffix in extensions
        ]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        sample = self.loader(path)
        if self.transform is not None:
            sample = self.transform(sample)
        if self.target_transform is not None:
            label = self.target_transform(label)
        return sample, label

    def __len__(self) -> int:
        return len(self.samples)


def _stub(name: str, **members: object) -> None:
    module = ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def spikingjelly() -> ModuleType:
    """Returns ``spikingjelly.datasets``, imported with replacements for torchvision and torchaudio.

    Its threads and compression are set by environment variables that it reads now:
    SJ_MAX_THREADS_NUMBER_FOR_DATASETS_PREPROCESS and SJ_SAVE_DATASETS_COMPRESSED.
    """
    if "torchvision" not in sys.modules:
        _stub("torchaudio")
        _stub("torchvision")
        _stub("torchvision.transforms")
        _stub("torchvision.datasets", DatasetFolder=_DatasetFolder)
        _stub(
            "torchvision.datasets.utils",
            check_integrity=lambda fpath, md5: True,  # the copied recordings have no published checksum
            extract_archive=lambda archive, folder: shutil.unpack_archive(archive, folder),
            download_url=None,
            verify_str_arg=None,
        )
    from spikingjelly import datasets

    return datasets


def spikingjelly_dataset(name: str, root: Path, T: int, *, train: bool) -> Dataset[tuple[np.ndarray, int]]:
    """Returns SpikingJelly's data set of frames, converted unless ``root`` holds it already.

    Args:
        name: ``gesture`` or ``nmnist``.
        root: As :func:`spikingjelly_root` made it.
        T: Number of frames, cut by number of events.
        train: Which split; both are converted.
    """
    datasets = spikingjelly()
    made = {"gesture": datasets.DVS128Gesture, "nmnist": datasets.NMNIST}[name]
    found: Dataset[tuple[np.ndarray, int]] = made(
        root, train=train, data_type="frame", frames_number=T, split_by="number"
    )
    return found


def spikingjelly_root(name: str, raw: Path, root: Path) -> None:
    """Arranges raw files as SpikingJelly expects them; gesture recordings are extracted, as are ours."""
    (root / "download").mkdir(parents=True)
    if name == "gesture":
        (root / "extract").mkdir()
        (root / "extract" / "DvsGesture").symlink_to(raw, target_is_directory=True)
    else:
        for archive in raw.glob("*.zip"):
            (root / "download" / archive.name).symlink_to(archive)


def as_columns(events: np.ndarray, dtype: type[np.integer]) -> dict[str, np.ndarray]:
    """Returns events as SpikingJelly's readers do: one array a column."""
    return {name: events[name].astype(dtype) for name in ("t", "x", "y", "p")}


def as_tonic(events: np.ndarray) -> np.ndarray:
    """Returns events as tonic's readers do."""
    from tonic.io import make_structured_array

    made: np.ndarray = make_structured_array(events["x"], events["y"], events["t"], events["p"])
    return made


def _rebuild(ours: SpikingNetwork, rebuild: Callable[[nn.Module], nn.Module | None], library: Any) -> nn.Sequential:
    """Returns a peer's network of the same layers, in training mode.

    Args:
        ours: The network.
        rebuild: Returns the peer's convolution or neurons; None for other layers.
        library: Where the peer has its other layers, by torch's names.
    """
    net = nn.Sequential()
    for name, module in ours.layers.items():
        made = rebuild(module)
        match module:
            case nn.BatchNorm2d():
                made = library.BatchNorm2d(module.num_features)
            case Pool():
                pool = library.MaxPool2d if module.mode == "max" else library.AvgPool2d
                made = pool(module.kernel, module.stride)
            case Dropout():
                made = library.Dropout(module.p)
            case nn.Linear():
                if not any(isinstance(before, nn.Linear) for before in net):
                    net.add_module("flatten", library.Flatten())
                made = library.Linear(module.in_features, module.out_features, bias=module.bias is not None)
        if made is None:
            sys.exit(f"{name}: the peer's counterpart of {module} is not known")
        net.add_module(name, made)
    return net


def spikingjelly_network(ours: SpikingNetwork, step_mode: str) -> nn.Sequential:
    """Returns SpikingJelly's network of the same layers with the same weights, in training mode.

    As its own ``model.parametric_lif_net``, but without biases in the linear layers, as published.

    Args:
        ours: PLIF neurons with τ₀ = 2, the arctan surrogate, threshold 1, reset to 0.
        step_mode: ``m``: a layer is called once with the whole sequence, and batch norm takes its statistics over time;
            ``s``: once a time step.
    """
    from spikingjelly.activation_based import functional, layer, neuron, surrogate

    def rebuild(module: nn.Module) -> nn.Module | None:
        match module:
            case nn.Conv2d():
                return layer.Conv2d(
                    module.in_channels,
                    module.out_channels,
                    module.kernel_size,
                    stride=module.stride,
                    padding=module.padding,
                    bias=False,
                )
            case SpikingLayer():
                return neuron.ParametricLIFNode(
                    init_tau=2.0, surrogate_function=surrogate.ATan(), detach_reset=module.spec.detach_reset
                )
        return None

    net = _rebuild(ours, rebuild, layer)
    net.add_module("vote", layer.VotingLayer(ours.voters))
    functional.set_step_mode(net, step_mode)
    # its parameter w is a of ours
    names = {name: name.removeprefix("layers.").replace(".a", ".w") for name in ours.state_dict()}
    net.load_state_dict({names[name]: value.detach().clone() for name, value in ours.state_dict().items()})
    return net.train()


def snntorch_network(ours: SpikingNetwork) -> nn.Sequential:
    """Returns snnTorch's network of the same layers, as its users write it, in training mode."""
    import snntorch
    from snntorch import surrogate

    def rebuild(module: nn.Module) -> nn.Module | None:
        match module:
            case nn.Conv2d():
                channels, kernel = (module.in_channels, module.out_channels), module.kernel_size[0]
                return nn.Conv2d(*channels, kernel, module.stride[0], kernel // 2, bias=False)
            case SpikingLayer():
                return snntorch.Leaky(beta=0.5, learn_beta=True, spike_grad=surrogate.atan(), reset_mechanism="zero")
        return None

    return _rebuild(ours, rebuild, nn).train()


def snntorch_rates(net: nn.Sequential, x: Tensor, T: int, voters: int) -> Tensor:
    """Returns the votes ``[T, N, classes]`` of :func:`snntorch_network`, the neurons starting at rest.

    Args:
        net: The network.
        x: Frames ``[N, T, C, H, W]`` or images ``[N, C, H, W]``, which go through all layers at each step.
        T: Number of time steps.
        voters: Neurons of a class.
    """
    import snntorch

    states = {layer: layer.reset_mem() for layer in net if isinstance(layer, snntorch.Leaky)}
    votes = []
    for step in range(T):
        y = x[:, step] if x.dim() == 5 else x
        for layer in net:
            if isinstance(layer, snntorch.Leaky):
                y, states[layer] = layer(y, states[layer])
            else:
                y = layer(y)
        votes.append(y.unflatten(1, (-1, voters)).mean(2))
    return torch.stack(votes)


class NoBackend(Exception):
    """The backend is not available."""


def choose_backend(device: torch.device, backend: str) -> None:
    """Makes SpikingJelly's PLIF neurons use one of its backends from now on.

    It reads the variable SJ_PLIF_CUDA_IMPLEMENTATION at import; here the stored value is set, so that one process can
    measure all backends.

    Args:
        device: Where they are.
        backend: ``cuda``, ``triton`` or ``torch``.

    Raises:
        NoBackend: It is not available; the message says why.
    """
    from spikingjelly._ops.plif import _selection

    if device.type != "cuda":
        if backend != "torch":
            raise NoBackend("for GPUs only")
        return
    _selection._requested = backend
    _selection._selections.clear()
    try:
        _selection.get_cuda_forward(device)
    except RuntimeError as error:
        raise NoBackend(str(error)) from error


def spikingjelly_rates(net: nn.Sequential, x: Tensor, T: int, *, once: bool) -> Tensor:
    """Returns the votes ``[T, N, classes]`` of :func:`spikingjelly_network`, and resets it.

    Args:
        net: The network.
        x: Frames ``[N, T, C, H, W]`` or images ``[N, C, H, W]``.
        T: Number of time steps.
        once: Images go through the layers before the first neuron once, as in the published code; else T times, as in
            SpikingJelly's example ``conv_fashion_mnist`` of ``step_mode`` m.
    """
    from spikingjelly.activation_based import functional, neuron

    whole = net[0].step_mode == "m"
    first = 0  # of the layers that see every step
    if x.dim() == 5:
        x_seq = x.transpose(0, 1)
    else:
        if once:
            first = next(i for i, module in enumerate(net) if isinstance(module, neuron.ParametricLIFNode))
            x = net[:first](x[None])[0] if whole else net[:first](x)
        x_seq = x.expand(T, *x.shape)
    rates: Tensor = net[first:](x_seq) if whole else torch.stack([net[first:](x_t) for x_t in x_seq])
    functional.reset_net(net)
    return rates
