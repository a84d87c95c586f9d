"""What holding recordings as int16 or float16 does to windows, features and average precision.

`python -m extra.benchmarks.half_size [--run runs/demo/c5e-03-r0] [--snapshot 0-dense.pt] [--file
FILE.h5]`: the trained network of a run scores the same file with each form of samples.
"""

import argparse
from pathlib import Path

import torch

from cplxnet import auto
from cplxnet.musicnet import MusicNet, build, features, pooled_average_precision

FORMS = ("float32", "int16", "float16")
BATCH = 256


def decibels(error: torch.Tensor, reference: torch.Tensor) -> float:
    """Energy of `error` beside that of `reference`."""
    return float(20 * torch.log10(error.abs().double().norm() / reference.abs().double().norm()))


def network(folder: Path, snapshot: str, data: MusicNet) -> tuple[torch.nn.Module, object]:
    """The network that the run saved, ready to score, and its kind of features."""
    manifest = auto.load(folder.with_suffix(".json"))
    saved = torch.load(folder / snapshot, weights_only=True)
    spec, model = manifest.features, manifest.stage(saved["stage"]).model
    example = features(data.windows([0])[0], spec.kind, cplx=spec.cplx, shift=spec.shift)
    net = build(model.name, example, **model.kwargs)
    net.load_state_dict(saved["model"])
    return net.eval(), spec


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m extra.benchmarks.half_size", description=__doc__
    )
    parser.add_argument("--run", type=Path, default=Path("runs/demo/c5e-03-r0"))
    parser.add_argument("--snapshot", default="0-dense.pt")
    parser.add_argument("--file", default="data/demo/musicnet_11khz_test.h5")
    parser.add_argument("--stride", type=int, default=2048)
    options = parser.parse_args()
    sets = {form: MusicNet(options.file, stride=options.stride, samples=form) for form in FORMS}
    net, spec = network(options.run, options.snapshot, sets["float32"])
    logits: dict[str, list[torch.Tensor]] = {form: [] for form in FORMS}
    kept: dict[str, list[torch.Tensor]] = {form: [] for form in FORMS}
    spectra: dict[str, list[torch.Tensor]] = {form: [] for form in FORMS}
    targets = []
    for begin in range(0, len(sets["float32"]), BATCH):
        index = torch.arange(begin, min(begin + BATCH, len(sets["float32"])))
        for form, data in sets.items():
            signal, notes = data.windows(index)
            z = features(signal, spec.kind, cplx=spec.cplx, shift=spec.shift)
            logits[form].append(net(z))
            kept[form].append(signal)
            spectra[form].append(z[:, :, ::16])  # one in 16, for memory's sake
        targets.append(notes)
    target = torch.cat(targets)
    print(
        f"{options.run}/{options.snapshot} on {options.file}: {len(target)} windows "
        f"at stride {options.stride}"
    )
    exact = {
        name: torch.cat(values["float32"])
        for name, values in (("s", kept), ("z", spectra), ("l", logits))
    }
    for form in FORMS:
        signal, z, logit = (torch.cat(values[form]) for values in (kept, spectra, logits))
        told = f"{form}: average precision {pooled_average_precision(target, logit):.6f}"
        if form != "float32":
            told += (
                f", windows {decibels(signal - exact['s'], exact['s']):.1f} dB, "
                f"features {decibels(z - exact['z'], exact['z']):.1f} dB, "
                f"largest change of a logit {float((logit - exact['l']).abs().max()):.1e}"
            )
        print(told)


if __name__ == "__main__":
    main()
