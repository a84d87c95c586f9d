"""A training step and the scoring of a shrunk network, beside the dense and the masked one.

`python -m extra.benchmarks.shrunk [--rounds 5]`: seconds of the processor on one thread, which can
be compared on a busy machine; in turn, the least of some rounds. Masks are random with the shape of
those of the settled grid's runs vd-c2e-02-r0, vd-c1e-01-r0 and vd-c4e-01-r0: as many units read of
each layer, and as many living weights between those.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from cplxnet import nn as cplx
from cplxnet.musicnet.networks import MODELS

from .timing import in_turn

TRAIN_BATCH, SCORE_BATCH, WINDOW = 52, 128, 4096
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "fc1", "fc2")
# compression -> of each layer the outputs and inputs that are read, and the living weights
READ = {
    50: [(16, 1, 95), (32, 16, 1479), (64, 32, 5203), (64, 64, 9230), (122, 64, 14322),
         (128, 122, 20110), (1967, 2204, 63029), (84, 1967, 40609)],
    181: [(16, 1, 94), (32, 16, 1280), (64, 32, 3360), (64, 64, 4673), (107, 64, 5600),
          (127, 107, 4726), (803, 1281, 12339), (84, 803, 8258)],
    493: [(16, 1, 89), (32, 16, 962), (64, 32, 1610), (64, 64, 1686), (86, 64, 1629),
          (115, 86, 1192), (344, 679, 2972), (84, 344, 2575)],
}  # fmt: skip


def masked(compression: int) -> nn.Module:
    """The complex DeepConvNet, random weights under masks of this compression."""
    network = MODELS["complex.DeepConvNetMasked"]()
    generator = torch.Generator().manual_seed(0)
    masks = {}
    channels = 0
    for name, (n_out, n_in, n_living) in zip(LAYERS, READ[compression], strict=True):
        mask = torch.zeros_like(network.get_buffer(f"{name}.mask"))
        columns = torch.arange(n_in)
        if name == "fc1":  # some of the 29 positions of each channel
            columns = torch.randperm(29 * channels, generator=generator)[:n_in]
        channels = n_out

        box = torch.zeros(n_out, n_in, *mask.shape[2:], dtype=torch.bool)
        box.view(-1)[torch.randperm(box.numel(), generator=generator)[:n_living]] = True
        mask[:n_out, columns] = box
        masks[name] = mask
    cplx.deploy_masks(network, masks)
    return network


def step(network: nn.Module) -> Callable[[], None]:
    """A step without features: forward, loss, backward, clipping, Adam."""
    x = torch.randn(TRAIN_BATCH, 1, WINDOW, dtype=torch.complex64)
    notes = (torch.rand(TRAIN_BATCH, 84) < 0.04).float()
    adam = torch.optim.Adam(network.parameters(), fused=True)

    def run() -> None:
        network.train()
        adam.zero_grad()
        F.binary_cross_entropy_with_logits(network(x), notes).backward()
        cplx.GradientNorm().clip(network.parameters(), 0.05)
        adam.step()

    return run


def scoring(network: nn.Module) -> Callable[[], None]:
    x = torch.randn(SCORE_BATCH, 1, WINDOW, dtype=torch.complex64)

    @torch.inference_mode()
    def run() -> None:
        network.eval()
        network(x)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    cplx.keep_freed()

    print("| compression | work | dense, ms | masked/dense | shrunk/dense |\n|---|---|---|---|---|")
    for compression in READ:
        network = masked(compression)
        networks = {
            "dense": MODELS["complex.DeepConvNet"](),
            "masked": network,
            "shrunk": cplx.Shrunk(network).network,
        }
        for name, work in (("step", step), ("scoring", scoring)):
            works = {kind: work(network) for kind, network in networks.items()}
            times = in_turn(works, arguments.rounds, time.process_time)
            dense = min(times.pop("dense"))
            ratios = " | ".join(f"{min(seconds) / dense:.2f}" for seconds in times.values())
            print(f"| {compression} | {name} | {1000 * dense:.0f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
