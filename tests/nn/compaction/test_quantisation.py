"""Quantised compact networks as files: no weight off by more than its sigma, few bits, and safe."""

import json
import lzma
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.nn import CompactFileError, compact, load_compact, save_compact
from cplxnet.nn.compaction.file import QUANTISED, _digest
from cplxnet.nn.compaction.network import Compact
from cplxnet.nn.compaction.quantisation import pack, posterior_sigma, sigma_for_bits, unpack


@torch.no_grad()
def variational(*, is_complex: bool = True) -> Any:
    """A network as after some training: random weights, biases, batch norm and log_sigma2."""
    if is_complex:
        net: Any = nn.Sequential(
            cplx.CplxConv1dVD(1, 6, 4, stride=2, bias=False),
            cplx.CplxBatchNorm1d(6),
            cplx.Split(nn.ReLU()),
            cplx.Split(nn.AvgPool1d(2)),
            cplx.CplxFlatten(),
            cplx.CplxLinearVD(6 * 7, 20),
            cplx.Split(nn.ReLU()),
            cplx.CplxLinearVD(20, 4),
            cplx.CplxToReal(),
        )
    else:
        net = nn.Sequential(
            cplx.Conv1dVD(1, 6, 4, stride=2),
            nn.BatchNorm1d(6),
            nn.ReLU(),
            nn.MaxPool1d(2),
            nn.Flatten(),
            cplx.LinearVD(6 * 7, 20),
            nn.ReLU(),
            cplx.LinearVD(20, 4),
        )
    for name, value in net.named_parameters():
        if name.endswith("log_sigma2"):
            value.normal_(-6, 2)
        elif value.dim() == 1 or "bias" in name:
            value.normal_()
    net[1].running_var += torch.rand_like(net[1].running_var)
    return net.eval()


def example() -> tuple[Compact, list[Tensor]]:
    net = variational()
    return compact(net, measure=False), posterior_sigma(net, net)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model, sigma = example()
    save_compact(model, tmp_path / "net.st", sigma=sigma, metadata={"run": "ä"})
    return tmp_path / "net.st"


# ---- sigma --------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_complex", [True, False])
@torch.no_grad()
def test_sigma_goes_with_its_weight(is_complex: bool) -> None:
    """Alpha, which batch norm's scale leaves alone, tells which weight of the network it is."""
    net = variational(is_complex=is_complex)
    layers = [layer for layer in net if isinstance(layer, cplx.GaussianWeight)]
    small = compact(net, measure=False)
    for layer, stage, sigma in zip(layers, small.stages, posterior_sigma(net, net), strict=True):
        assert torch.equal(sigma != 0, stage.weight != 0)
        log_alpha = 2 * (sigma / stage.weight.abs())[stage.weight != 0].log()
        gap = log_alpha.unsqueeze(1) - layer.log_alpha[layer.relevance(-0.5)]
        assert gap.abs().min(1).values.max() < 1e-5


def test_sigma_of_a_masked_network_is_that_of_the_posterior() -> None:
    """Fine-tuned weights with masks, deviations from the network before."""
    net = variational()
    linear = cplx.CplxLinearMasked(20, 4)
    tuned = nn.Sequential(cplx.CplxLinearMasked(42, 20), cplx.Split(nn.ReLU()), linear)
    before = nn.Sequential(net[5], net[6], net[7])
    tuned[0].mask = torch.rand(20, 42) < 0.5
    linear.mask = torch.rand(4, 20) < 0.9
    for sigma, layer, posterior in zip(
        posterior_sigma(tuned, before), (tuned[0], linear), (net[5], net[7]), strict=True
    ):
        expected = (posterior.log_sigma2 / 2).exp() * layer.mask
        torch.testing.assert_close(sigma.view(expected.shape), expected)


def test_a_layer_without_posterior_is_named() -> None:
    net = nn.Sequential(cplx.CplxLinear(8, 4), cplx.CplxLinearVD(4, 2))
    with pytest.raises(ValueError, match="0: expected a posterior of every layer with weights"):
        posterior_sigma(net, net)


# ---- values -------------------------------------------------------------------------------------


def off_by(model: Compact, path: Path) -> list[Tensor]:
    back = load_compact(path, measure=False)
    pairs = zip(model.stages, back.stages, strict=True)
    return [(stage.weight - other.weight).abs() for stage, other in pairs]


@pytest.mark.parametrize("is_complex", [True, False])
@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
def test_no_weight_is_off_by_more_than_its_sigma(
    tmp_path: Path, is_complex: bool, spread: float
) -> None:
    net = variational(is_complex=is_complex)
    model = compact(net, threshold=math.inf, measure=False)
    sigma = [
        0.01 * (spread * torch.randn(stage.weight.shape)).exp() * stage.weight.abs().max()
        for stage in model.stages
    ]
    save_compact(model, tmp_path / "net", sigma=sigma)
    gaps = off_by(model, tmp_path / "net")
    for gap, most, stage in zip(gaps, sigma, model.stages, strict=True):
        assert bool((gap <= torch.maximum(most, 2**-17 * stage.weight.abs())).all())
        assert (gap / most).max() > 0.2


@pytest.mark.parametrize("is_complex", [True, False])
def test_many_bits_are_float32(tmp_path: Path, is_complex: bool) -> None:
    """A sigma of almost nothing, and biases within half of 2^-10 of the largest."""
    model = compact(variational(is_complex=is_complex), threshold=math.inf, measure=False)
    sigma = [torch.full((), 1e-20) for _ in model.stages]
    save_compact(model, tmp_path / "net", sigma=sigma)
    back = load_compact(tmp_path / "net", measure=False)
    for stage, other in zip(model.stages, back.stages, strict=True):
        torch.testing.assert_close(other.weight, stage.weight, rtol=2**-16, atol=0)
        for mine, theirs in ((stage.bias, other.bias), (stage.mix, other.mix)):
            if mine is not None:
                assert theirs.shape == mine.shape and theirs.dtype == mine.dtype
                parts = torch.view_as_real(mine - theirs) if mine.is_complex() else mine - theirs
                largest = torch.view_as_real(mine) if mine.is_complex() else mine
                assert parts.abs().max() <= 2**-10 * largest.abs().max()


def test_what_is_less_than_its_sigma_is_dropped(tmp_path: Path) -> None:
    model, _ = example()
    save_compact(model, tmp_path / "net", sigma=[10 * s.weight.abs() for s in model.stages])
    back = load_compact(tmp_path / "net", measure=False)
    assert not any(bool(stage.weight.any()) for stage in back.stages)
    assert back(torch.randn(2, 1, 32, dtype=torch.complex64)).shape == (2, 4)


def by_hand(path: Path) -> list[list[complex]]:
    """The weights (out, in, k) of a file, one after the other, in whole numbers and fractions."""

    def numbers(key: str) -> list[int]:
        width, coded = stored[key][0], stored[key][1:]
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 2**20, "lc": 0, "lp": 0, "pb": 0}]
        planes = lzma.decompress(coded, lzma.FORMAT_RAW, filters=filters)
        n = len(planes) // width
        return [sum(planes[p * n + i] << 8 * p for p in range(width)) for i in range(n)]

    with safetensors.safe_open(path, "np") as file:
        stored = {key: file.get_tensor(key).tobytes() for key in file.keys()}  # noqa: SIM118
    text = bytes(numbers("description")).decode()
    gaps, classes, values = (numbers(key) for key in ("gaps", "classes", "values"))
    weights = []
    for stage in json.loads(text)["network"]["stages"]:
        n, (out, n_in, k), parts = stage["kept"], stage["shape"], 1 + stage["complex"]
        own = [gaps.pop(0) for _ in range(n)]
        of_class = [classes.pop(0) for _ in range(n)]
        signed = [values.pop(0) for _ in range(parts * n)]
        weight = [0j] * (out * n_in * k)
        order = sorted(range(n), key=lambda i: of_class[i])
        position = [sum(own[: i + 1]) + i for i in range(n)]
        for number, i in enumerate(order):
            pair = signed[parts * number : parts * (number + 1)]
            steps = [-(v + 1) // 2 if v % 2 else v // 2 for v in pair]
            exact = [Fraction(q) * Fraction(stage["step"]) / 2 ** of_class[i] for q in steps]
            unit, tap, row = position[i] // out // k, position[i] // out % k, position[i] % out
            weight[(row * n_in + unit) * k + tap] = complex(*map(float, exact))
        weights.append(weight)
    assert not gaps and not classes and not values
    return weights


@pytest.mark.parametrize("is_complex", [True, False])
def test_the_file_read_by_hand_in_whole_numbers(tmp_path: Path, is_complex: bool) -> None:
    """Bit for bit: nothing is left to a machine's rounding."""
    net = variational(is_complex=is_complex)
    model = compact(net, measure=False)
    save_compact(model, tmp_path / "net", sigma=posterior_sigma(net, net))
    back = load_compact(tmp_path / "net", measure=False)
    for stage, weight in zip(back.stages, by_hand(tmp_path / "net"), strict=True):
        assert stage.weight.flatten().to(torch.complex128).tolist() == weight


def test_a_second_time_it_is_the_same_file(saved: Path, tmp_path: Path) -> None:
    back = load_compact(saved, measure=False)
    assert back.metadata == {"run": "ä"}
    for name in ("once", "twice"):
        save_compact(back, tmp_path / name, sigma=sigma_for_bits(back, 6))
    assert (tmp_path / "once").read_bytes() == (tmp_path / "twice").read_bytes()


# ---- size ---------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("bits", [3, 5, 8])
def test_bits_are_about_what_was_asked_for(tmp_path: Path, bits: int) -> None:
    """Normal weights of which one in twenty is kept: values and positions near their entropy."""
    net: Any = nn.Sequential(cplx.CplxLinearMasked(1000, 200), cplx.CplxToReal())
    net[0].weight.copy_(torch.randn_like(net[0].weight))
    net[0].mask = torch.rand(200, 1000) < 0.05
    model = compact(net, measure=False)
    save_compact(model, tmp_path / "net", sigma=sigma_for_bits(model, bits))

    n_kept = int(net[0].mask.sum())
    binary = -(0.05 * math.log2(0.05) + 0.95 * math.log2(0.95))
    least = (2 * bits * n_kept + binary * 200 * 1000) / 8
    assert 0.94 < (tmp_path / "net").stat().st_size / (least + 1600) < 1.06
    with pytest.raises(ValueError, match="expected 2 to 16 bits for a number, got 1"):
        sigma_for_bits(model, 1)


# ---- hostile files ------------------------------------------------------------------------------


def test_every_altered_byte_and_every_cut_is_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for position in torch.randint(len(content), (60,), generator=generator).tolist():
        altered = bytearray(content)
        altered[position] ^= 1 << position % 8
        (tmp_path / "altered").write_bytes(altered)
        with pytest.raises(CompactFileError, match="altered: expected a compact network"):
            load_compact(tmp_path / "altered", measure=False)
    for length in (0, 8, 300, len(content) // 2, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(CompactFileError, match="cut: expected a compact network"):
            load_compact(tmp_path / "cut", measure=False)


Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


def crafted(path: Path, change: Change, *, size: int | None = None) -> None:
    """Change a file's description and tensors, and compute its checksum anew."""
    with safetensors.safe_open(path, "pt") as file:
        n = int(file.metadata()[QUANTISED].partition(" ")[2])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    (letters,) = unpack(tensors["description"], [n])
    described = json.loads(letters.astype(np.uint8).tobytes())
    tensors["description"] = torch.zeros(0, dtype=torch.uint8)
    change(described["network"], tensors)
    text = json.dumps(described).encode()
    if not len(tensors["description"]):
        tensors["description"] = pack([np.frombuffer(text, np.uint8)])
    said = str(len(text) if size is None else size)
    safetensors.torch.save_file(tensors, path, {QUANTISED: f"{_digest(said, tensors)} {said}"})


HOSTILE: tuple[Any, ...] = (
    *(None, -1, 10**12, 10**30, 0.5, 1e400, math.nan, True, "x", [], {}, [[]]),
    *([10**6] * 3, [20, 5, 7], [20, 6, 7, 1], [0, 6, 7], ["average", 10**9, 1]),
)
KEYS = (
    *("name", "shape", "complex", "kept", "step", "bias", "mix", "stride", "padding", "dilation"),
    *("whole", "relu", "pool", "real_part", "in_channels", "stages"),
)


@pytest.mark.parametrize("key", KEYS)
def test_a_crafted_description_is_refused_or_harmless(saved: Path, key: str) -> None:
    content = saved.read_bytes()
    for value in HOSTILE:

        def change(network: dict[str, Any], _: Any, value: Any = value) -> None:
            (network if key in network else network["stages"][1])[key] = value

        saved.write_bytes(content)
        crafted(saved, change)
        try:
            model = load_compact(saved, measure=False)
            assert model(torch.randn(2, 1, 32, dtype=torch.complex64)).shape == (2, 4)
        except CompactFileError as error:
            assert "net.st: expected a compact network" in str(error)


@pytest.mark.parametrize("key", ["gaps", "classes", "values", "others", "description"])
def test_crafted_bytes_are_refused_or_harmless(saved: Path, key: str) -> None:
    """Bytes of LZMA at random, cut short, and other numbers than there should be."""
    content = saved.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for number in range(40):

        def change(_: Any, tensors: dict[str, Tensor], number: int = number) -> None:
            stored = tensors[key].clone()
            if number < 30:
                stored = stored if len(stored) else torch.zeros(50, dtype=torch.uint8)
                at = torch.randint(len(stored), (1 + number % 3,), generator=generator)
                stored[at] = torch.randint(256, at.shape, generator=generator).to(torch.uint8)
            elif number < 35:
                stored = stored[: number - 30]
            else:
                stored = pack([np.arange(number) << number - 35])
            tensors[key] = stored

        saved.write_bytes(content)
        crafted(saved, change)
        try:
            model = load_compact(saved, measure=False)
            assert model(torch.randn(2, 1, 32, dtype=torch.complex64)).shape == (2, 4)
        except CompactFileError as error:
            assert "net.st: expected a compact network" in str(error)


def claim_kept(n: int) -> Change:
    return lambda network, _: network["stages"][1].update(kept=n)


def claim_shape(network: dict[str, Any], _: Any) -> None:
    network["stages"][1].update(shape=[10**4, 10**4, 10**4])


def bomb(_: Any, tensors: dict[str, Tensor]) -> None:
    tensors["values"] = pack([np.zeros(2**24, np.uint8)])


@pytest.mark.parametrize(
    ("change", "size", "told"),
    [
        (claim_kept(10**12), None, "expected whole numbers, 268435456 at most"),
        (claim_kept(2**24), None, "expected 8388608 kept weights at most"),
        (claim_kept(2**22), None, "expected .* numbers at most in .* bytes, got 838"),
        (claim_shape, None, "expected .* weights at most in a file of .* bytes, got 10000000"),
        (bomb, None, "expected .* numbers, got"),
        (lambda *_: None, 10**12, "expected .* numbers at most in .* bytes, got 1000000000000"),
    ],
)
def test_claims_beyond_memory_are_refused_before_room_is_made(
    saved: Path, change: Change, size: int | None, told: str
) -> None:
    crafted(saved, change, size=size)
    tracemalloc.start()
    with pytest.raises(CompactFileError, match=told):
        load_compact(saved)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


def layer(
    out: int, window: int, kept: int, *, whole: bool = True, pool: tuple[int, int] | None = None
) -> Change:
    """A network of one layer over one channel, whose kept weights are the first ones, all equal."""

    def change(network: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        stage = network["stages"][0] | {"shape": [out, 1, window], "kept": kept, "whole": whole}
        stage |= {"stride": 1, "mix": None, "relu": False, "bias": 1.0, "pool": None}
        if pool is not None:
            stage["pool"] = ["average", *pool]
        network |= {"stages": [stage], "in_channels": 1}

        tensors["inputs"] = torch.zeros(1, dtype=torch.int64)
        for key, numbers in (
            ("gaps", np.zeros(kept, np.uint8)),
            ("classes", np.zeros(kept, np.uint8)),
            ("values", np.ones(2 * kept, np.uint8)),
            ("others", np.zeros(2 * out, np.uint8)),
        ):
            tensors[key] = pack([numbers])

    return change


LIMITED = """
import resource, sys
from pathlib import Path
from cplxnet.nn import CompactFileError, load_compact

used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, -1))
for path in sys.argv[1:]:
    try:
        load_compact(path)
        print("read")
    except CompactFileError as error:
        print(str(error).partition(", got ")[2])
"""


def test_a_file_of_a_kilobyte_takes_no_gigabyte(saved: Path, tmp_path: Path) -> None:
    """What LZMA, sizes or a window claim beyond what so few bytes can be."""
    content = saved.read_bytes()
    cases = {
        "kept": (layer(1, 2**23, 2**23), "weights at most in a file of"),
        "equal": (layer(1, 2**19, 2**19), "numbers at most in"),
        "empty": (layer(2**14, 2**14, 1), "weights at most in a file of"),
        "without area": (layer(2**20, 0, 0), "weights at most in a file of"),
        "window": (layer(16, 6, 96, whole=False, pool=(2**16, 2**16)), "activations in a layer"),
        "long": (layer(1, 6, 6, whole=False, pool=(2**20, 1)), "read"),
    }
    for name, (change, _) in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        crafted(path, change)
        assert path.stat().st_size < 8000

    finished = subprocess.run(
        [sys.executable, "-c", LIMITED, *(str(tmp_path / name) for name in cases)],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert len(lines) == len(cases)
    for line, (_, told) in zip(lines, cases.values(), strict=True):
        assert told in line
