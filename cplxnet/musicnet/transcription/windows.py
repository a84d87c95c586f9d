"""From a recording to probabilities of notes: a window around every frame, through the network.

Frame k is at sample k * hop, the middle of its window, as labels are (extra/design.md). Beyond both
ends of the recording there is silence, so that a recording of any length is transcribed from its
first sample to its last. A frame that is as far from both ends as half a window has exactly the
window that `MusicNet` has there.
"""

from collections.abc import Callable

import numpy as np
import torch

from cplxnet.musicnet.features import features
from cplxnet.progress import bar

MOST_SAMPLES = 2**22  # of a batch of windows: a file may say that its network hears very long ones
# features (B, C, L) -> logits (B, 84); a torch.nn.Module is one
Network = Callable[[torch.Tensor], torch.Tensor]


@torch.inference_mode()
def transcribe(
    model: Network,
    samples: np.ndarray | torch.Tensor,
    *,
    rate_hz: int = 11_000,
    window: int = 4096,
    hop: int = 128,
    kind: str = "fft",
    cplx: bool = True,
    shift: bool = True,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each note at every `hop` samples of a recording.

        times[k] = k hop / rate_hz
        probabilities[k] = sigmoid(model(features(x[k hop - window/2 : k hop + window/2])))

    Args:
        model: features (B, C, L) -> logits (B, 84). A `torch.nn.Module` is put into evaluation.
        samples: float (samples,) at `rate_hz`, of one channel, on the scale of the training data,
            full scale 1.
        rate_hz: samples per second; the networks of this package hear 11 000.
        window: samples that the network hears at a time.
        hop: samples from one frame to the next.
        kind, cplx, shift: as for `features`; `auto.heard(manifest)` gives them, and `window`.
        batch_size: windows at a time, fewer of very long ones.
        device: where the model is.
        progress: show a bar over the batches.

    Returns:
        times: float64 (frames,), seconds, frames = ceil(samples / hop).
        probabilities: float32 (frames, 84), of the MIDI notes 21 to 104.

    Raises:
        ValueError: no samples, more than one channel, whole numbers (try samples / 32768), NaN,
            infinity; a window, hop or batch size below 1; logits that are not finite or not
            (B, notes).
    """
    signal = _checked(samples)
    for name, value in (("window", window), ("hop", hop), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
    if isinstance(model, torch.nn.Module):
        model.eval()

    centres = frame_positions(len(signal), hop)
    # zeros on either side: row p of the overlapping view is the window around sample p
    padded = torch.nn.functional.pad(signal, (window // 2, window - window // 2)).to(device)
    rows = padded.unfold(0, window, 1)
    batch_size = max(1, min(batch_size, MOST_SAMPLES // window))
    batches = torch.from_numpy(centres).to(device).split(batch_size)

    probabilities = []
    for centre in bar(batches, desc="frames", leave=False, disable=not progress):
        logit = model(features(rows.index_select(0, centre), kind, cplx=cplx, shift=shift))
        probabilities.append(_probabilities(logit, len(centre)))
    return centres / rate_hz, torch.cat(probabilities).numpy()


def frame_positions(n_samples: int, hop: int) -> np.ndarray:
    """The sample that each frame of a recording is at, k * hop: int64 (ceil(n_samples / hop),)."""
    return np.arange(0, n_samples, hop)


def _checked(samples: np.ndarray | torch.Tensor) -> torch.Tensor:
    signal = torch.as_tensor(samples)
    if signal.dtype not in (torch.float16, torch.float32, torch.float64):
        raise ValueError(
            f"expected float samples of full scale 1, got {signal.dtype}; "
            "try samples / 32768 for int16"
        )
    if signal.ndim != 1 or not len(signal):
        raise ValueError(
            f"expected samples of one channel, shape (samples,), got {tuple(signal.shape)}; "
            "try the mean over channels"
        )
    if not signal.isfinite().all():
        n_bad = int((~signal.isfinite()).sum())
        raise ValueError(f"expected finite samples, got {n_bad} that are NaN or infinite")
    return signal.float()


def _probabilities(logit: torch.Tensor, n: int) -> torch.Tensor:
    if logit.ndim != 2 or len(logit) != n or logit.is_complex():
        raise ValueError(
            f"expected real logits of shape ({n}, notes) from the network, got {logit.dtype} "
            f"{tuple(logit.shape)}"
        )
    if not logit.isfinite().all():
        raise ValueError(
            f"expected finite logits from the network, got {int((~logit.isfinite()).sum())} of "
            f"{logit.numel()} that are NaN or infinite: its weights are damaged; try another file"
        )
    return logit.float().sigmoid().cpu()
