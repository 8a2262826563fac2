"""A speech denoiser three times: as Keras's SavedModel, as a port to PyTorch by others, as ours.

Its file has two Lambdas whose code it does not hold, so that it takes a description with their
modules: this is what a user of `--layers` writes. The port's modules have the names that its state
dict has. The model keeps the state of its LSTMs between frames of 512 samples; a module sees the
frames as steps of one sequence, which is the same.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import kerasport.torch
from generated import Array, deviation

LAYERS = {
    "lambda": {
        "module": {
            "source": '''
class Spectrum(nn.Module):
    """Frames to magnitude and phase; all frames are steps of one sequence."""

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        spectrum = torch.fft.rfft(frames.unsqueeze(0))
        return spectrum.abs(), spectrum.angle()
'''
        }
    },
    "lambda_1": {
        "module": {
            "source": '''
class Frames(nn.Module):
    """Magnitude, phase and a mask to frames."""

    def forward(self, magnitude: Tensor, phase: Tensor, mask: Tensor) -> Tensor:
        return torch.fft.irfft(torch.polar(magnitude * mask, phase))
'''
        }
    },
}


class InstantNorm(nn.Module):  # type: ignore[misc]
    """Normalizes each frame by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = (x - mean).square().mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-14) * self.gamma + self.beta


class Separation(nn.Module):  # type: ignore[misc]
    """Two LSTMs that put out a mask."""

    def __init__(self, size: int, hidden: int = 128) -> None:
        super().__init__()
        self.rnn1 = nn.LSTM(size, hidden, batch_first=True)
        self.rnn2 = nn.LSTM(hidden, hidden, batch_first=True)
        self.dense = nn.Linear(hidden, size)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.dense(self.rnn2(self.rnn1(x)[0])[0]))


class Port(nn.Module):  # type: ignore[misc]
    """The network as it was ported, frames in and frames out."""

    def __init__(self) -> None:
        super().__init__()
        self.sep1 = Separation(257)
        self.encoder_conv1 = nn.Conv1d(512, 256, 1, bias=False)
        self.encoder_norm1 = InstantNorm(256)
        self.sep2 = Separation(256)
        self.decoder_conv1 = nn.Conv1d(256, 512, 1, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(frames)
        magnitude = spectrum.abs()
        clean = torch.fft.irfft(torch.polar(self.sep1(magnitude) * magnitude, spectrum.angle()))
        encoded = self.encoder_conv1(clean.transpose(1, 2)).transpose(1, 2)
        mask = self.sep2(self.encoder_norm1(encoded))
        decoded: Tensor = self.decoder_conv1((mask * encoded).transpose(1, 2)).transpose(1, 2)
        return decoded


def noisy(frames: int) -> Array:
    """Frames of something like a voice in noise."""
    rng = np.random.default_rng(0)
    time = np.arange(512 + 128 * frames) / 16000
    voice = np.sin(2 * np.pi * 180 * time) * (1 + np.sin(2 * np.pi * 3 * time)) / 4
    signal = voice + rng.normal(size=time.shape) * 0.05
    return np.stack([signal[128 * n : 128 * n + 512] for n in range(frames)]).astype(np.float32)


def ours(folder: Path, frames: Array) -> Array:
    """What the generated module gives."""
    made = kerasport.torch.load_module(folder / "dtln_saved_model", layers=LAYERS)
    with torch.no_grad():
        found: Array = made(torch.from_numpy(frames)).numpy()
    return found


def deviation_from_port(folder: Path, frames: int = 50) -> float:
    """How far our module is from the port with the port's weights."""
    port = Port()
    port.load_state_dict(load_file(folder / "port_pytorch" / "model.safetensors"))
    given = noisy(frames)
    with torch.no_grad():
        wanted = port.eval()(torch.from_numpy(given)[None]).numpy()
    return deviation(ours(folder, given), wanted)


def deviation_from_graph(folder: Path, frames: int = 50) -> float:
    """How far our module is from TensorFlow, which runs the file's graph frame by frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow

        saved: Any = tensorflow.saved_model.load(str(folder / "dtln_saved_model"))
        run = saved.signatures["serving_default"]
        given = noisy(frames)
        wanted = [np.asarray(run(tensorflow.constant(frame[None]))["conv1d_1"]) for frame in given]
    return deviation(ours(folder, given), np.concatenate(wanted, axis=1))
