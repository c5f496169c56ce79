"""Ten small architectures as PyTorch modules, with data of their shape: for whole-model tests and benchmarks.

Only the functions that build or export a module import torch: data and settings are plain numpy.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

Array = NDArray[Any]
LossName = Literal["cross_entropy", "mse"]


@dataclass(frozen=True, slots=True)
class Model:
    """One architecture: `build(seed)` makes its module.

    `shape` is that of one sample. With the loss "mse" the target is the input itself, else one of `classes`.
    `learning_rate` is one at which rounding does not grow into another way within twenty steps.
    """

    name: str
    build: Callable[[int], nn.Module]
    shape: tuple[int, ...]
    classes: int
    learning_rate: float
    loss: LossName = "cross_entropy"
    tokens: int = 0

    def data(self, samples: int, seed: int = 0) -> tuple[Array, Array]:
        """Inputs and targets: every class has a pattern of its own, under noise as large."""
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, self.classes, samples)
        if self.tokens:
            # A class prefers its own stretch of the vocabulary for every second token.
            x = rng.integers(0, self.tokens, (samples, *self.shape))
            own = self.tokens // self.classes
            preferred = labels[:, None] * own + rng.integers(0, own, x.shape)
            return np.where(rng.random(x.shape) < 0.5, preferred, x), labels
        patterns = rng.standard_normal((self.classes, *self.shape), np.float32)
        x = patterns[labels] + rng.standard_normal((samples, *self.shape), np.float32)
        if self.loss == "mse":
            x = 1 / (1 + np.exp(-x))
            return x, x
        return x, labels


def example(model: Model, samples: int = 2) -> Array:
    """A few inputs, as an exporter wants to see them."""
    return model.data(samples)[0]


def _seeded(make: Callable[[], nn.Module]) -> Callable[[int], nn.Module]:
    def build(seed: int) -> nn.Module:
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = make()
            _season(module)
            return module

    return build


def _season(module: nn.Module) -> None:
    """Give normalisation layers scales, offsets and statistics as training would leave them.

    Fresh ones are all ones and zeros, which hides mistakes; and PyTorch's TorchScript exporter writes tensors
    of equal value only once, so that layers apart in the module would share their parameters in the file.
    """
    from torch import nn

    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
            nn.init.uniform_(layer.weight, 0.8, 1.2)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.8, 1.2)


def _mlp() -> nn.Module:
    from torch import nn

    layers = [nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)]
    return nn.Sequential(*layers)


def _lenet() -> nn.Module:
    """LeCun et al., Proc. IEEE 1998, in the form most used today: ReLU and max pooling."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def _fedavg_cnn() -> nn.Module:
    """McMahan et al., AISTATS 2017, section 3: 1,663,370 parameters."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(3136, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def _mobilenet() -> nn.Module:
    """Depthwise separable blocks (Howard et al., 2017) for 32x32 images: 0.14 million parameters."""
    from torch import nn

    def normalised(inputs: int, outputs: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        return [conv, nn.BatchNorm2d(outputs), nn.ReLU6()]

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        depthwise = normalised(inputs, inputs, 3, stride, groups=inputs)
        return nn.Sequential(*depthwise, *normalised(inputs, outputs, 1))

    features = nn.Sequential(
        *normalised(3, 16, 3),
        block(16, 32, 1),
        block(32, 64, 2),
        block(64, 64, 1),
        block(64, 128, 2),
        block(128, 128, 1),
        block(128, 256, 2),
        block(256, 256, 1),
    )
    parts = {"features": features, "pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten()}
    return _named(**parts, head=nn.Linear(256, 10))


def _resnet() -> nn.Module:
    """ResNet-8: the CIFAR form of He et al., CVPR 2016, section 4.2, with one block a stage."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.relu = nn.ReLU()
            self.short: nn.Module = nn.Identity()
            if stride > 1 or inputs != outputs:
                conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
                self.short = nn.Sequential(conv, nn.BatchNorm2d(outputs))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.relu(self.bn1(self.conv1(x)))
            out: torch.Tensor = self.relu(self.bn2(self.conv2(y)) + self.short(x))
            return out

    return _named(
        conv=nn.Conv2d(3, 16, 3, 1, 1, bias=False),
        bn=nn.BatchNorm2d(16),
        relu=nn.ReLU(),
        stage1=Block(16, 16, 1),
        stage2=Block(16, 32, 2),
        stage3=Block(32, 64, 2),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(),
        head=nn.Linear(64, 10),
    )


def _encoder() -> nn.Module:
    """A transformer encoder (Vaswani et al., 2017), layer norm first: two layers, 64 wide, 32 tokens."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self, length: int, width: int, heads: int) -> None:
            super().__init__()
            self.split, self.joined = (-1, length, heads, width // heads), (-1, length, width)
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
            self.out = nn.Linear(width, width)
            self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm1(x)
            q, k, v = (f(y).reshape(self.split).transpose(1, 2) for f in (self.query, self.key, self.value))
            scores = torch.softmax(q @ k.transpose(-1, -2) * self.split[-1] ** -0.5, -1)
            x = x + self.out((scores @ v).transpose(1, 2).reshape(self.joined))
            out: torch.Tensor = x + self.feed(self.norm2(x))
            return out

    class Encoder(nn.Module):
        def __init__(self, tokens: int = 1000, length: int = 32, width: int = 64, classes: int = 4) -> None:
            super().__init__()
            self.tokens = nn.Embedding(tokens, width)
            self.places = nn.Parameter(torch.randn(length, width) * 0.1)
            self.layers = nn.Sequential(Layer(length, width, 4), Layer(length, width, 4))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, classes)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.layers(self.tokens(x) + self.places))
            out: torch.Tensor = self.head(y.mean(1))
            return out

    return Encoder()


def _recurrent(kind: Literal["LSTM", "GRU"]) -> nn.Module:
    """One recurrent layer over a window of sensor readings; the last hidden state is classified."""
    import torch
    from torch import nn

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = getattr(nn, kind)(6, 64, batch_first=True)
            self.head = nn.Linear(64, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, _ = self.body(x)
            out: torch.Tensor = self.head(y[:, -1])
            return out

    return Classifier()


def _cnn1d() -> nn.Module:
    """Convolutions over a window of sensor readings, channels first."""
    from torch import nn

    return nn.Sequential(
        nn.Conv1d(6, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(32, 64, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(64, 6),
    )


def _autoencoder() -> nn.Module:
    """28x28 images through 32 numbers and back, with transposed convolutions."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1568, 32),
        nn.Linear(32, 1568),
        nn.ReLU(),
        nn.Unflatten(1, (32, 7, 7)),
        nn.ConvTranspose2d(32, 16, 3, 2, 1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 3, 2, 1, output_padding=1),
        nn.Sigmoid(),
    )


def _named(**modules: nn.Module) -> nn.Module:
    from collections import OrderedDict

    from torch import nn

    return nn.Sequential(OrderedDict(modules))


def _zoo(*models: Model) -> Mapping[str, Model]:
    return MappingProxyType({m.name: m for m in models})


ZOO = _zoo(
    Model("mlp", _seeded(_mlp), (784,), 10, 0.05),
    Model("lenet", _seeded(_lenet), (1, 28, 28), 10, 0.05),
    Model("fedavg_cnn", _seeded(_fedavg_cnn), (1, 28, 28), 10, 0.05),
    Model("mobilenet", _seeded(_mobilenet), (3, 32, 32), 10, 0.0003),
    Model("resnet", _seeded(_resnet), (3, 32, 32), 10, 0.01),
    Model("encoder", _seeded(_encoder), (32,), 4, 0.05, tokens=1000),
    Model("lstm", _seeded(lambda: _recurrent("LSTM")), (128, 6), 6, 0.1),
    Model("gru", _seeded(lambda: _recurrent("GRU")), (128, 6), 6, 0.1),
    Model("cnn1d", _seeded(_cnn1d), (6, 128), 6, 0.05),
    Model("autoencoder", _seeded(_autoencoder), (1, 28, 28), 10, 0.1, loss="mse"),
)
"""Every architecture by name."""


Exporter = Literal["torchscript", "dynamo"]


def export(module: nn.Module, inputs: Array, exporter: Exporter = "torchscript") -> bytes:
    """The module as an ONNX inference model with a free batch axis.

    "torchscript" is PyTorch's exporter of old, which needs the package onnx only; "dynamo" is the default
    since PyTorch 2.9 and needs onnxscript too. Neither may fold BatchNormalization into the convolution
    before it: the model is to be trained.
    """
    import torch

    module.eval()
    given = (torch.from_numpy(inputs),)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            torch.onnx.export(
                module,
                given,
                file,
                dynamo=False,
                opset_version=18,
                training=torch.onnx.TrainingMode.PRESERVE,
                input_names=["x"],
                output_names=["y"],
                dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
            )
        else:
            program = torch.onnx.export(
                module,
                given,
                dynamo=True,
                optimize=False,
                verbose=False,
                input_names=["x"],
                output_names=["y"],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            )
            assert program is not None
            program.save(file)
    return file.getvalue()
