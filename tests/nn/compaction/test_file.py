"""Compact networks as files: the same values back, small, and nothing else taken for one."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from cplxnet import nn as cplx
from cplxnet.nn import CompactFileError, compact, load_compact, save_compact
from cplxnet.nn.compaction.file import FORMAT, _digest, decode, encode
from cplxnet.nn.compaction.network import Compact


@torch.no_grad()
def example(keep: float = 0.2) -> Compact:
    net: Any = nn.Sequential(
        cplx.CplxConv1dMasked(1, 6, 4, stride=2, bias=False),
        cplx.CplxBatchNorm1d(6),
        cplx.Split(nn.ReLU()),
        cplx.Split(nn.AvgPool1d(2)),
        cplx.CplxFlatten(),
        cplx.CplxLinearMasked(6 * 7, 20),
        cplx.Split(nn.ReLU()),
        cplx.CplxLinearMasked(20, 4),
        cplx.CplxToReal(),
    ).eval()
    net[1].bias.normal_()
    net[5].mask = torch.rand(20, 42) < keep
    return compact(net, measure=False)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_compact(example(), tmp_path / "net.safetensors", metadata={"run": "c5e-03"})
    return tmp_path / "net.safetensors"


def test_the_same_comes_back(tmp_path: Path) -> None:
    model, x = example(), torch.randn(9, 1, 32, dtype=torch.complex64)
    model.metadata["threshold"] = "-0.5"
    save_compact(model, tmp_path / "a" / "net.st", metadata={"run": "ä"})
    back = load_compact(tmp_path / "a" / "net.st", measure=False)
    assert back.metadata == {"threshold": "-0.5", "run": "ä"}
    torch.testing.assert_close(back(x), model(x), rtol=0, atol=0)
    save_compact(back, tmp_path / "again.st")
    assert (tmp_path / "again.st").read_bytes() == (tmp_path / "a" / "net.st").read_bytes()
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["net.st"]
    measured = load_compact(tmp_path / "again.st", batch_sizes=(2,))
    assert list(measured.plan) == [2]
    torch.testing.assert_close(measured(x), model(x), rtol=1e-4, atol=1e-5)


def test_half_precision_rounds_the_weights(tmp_path: Path) -> None:
    model = example()
    save_compact(model, tmp_path / "half.st", dtype="float16")
    back = load_compact(tmp_path / "half.st", measure=False)
    for stage, other in zip(model.stages, back.stages, strict=True):
        rounded = torch.view_as_complex(torch.view_as_real(stage.weight).half().float())
        assert torch.equal(other.weight, rounded) and torch.equal(other.bias, stage.bias)
    model.stages[0].weight[0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=r"0: expected weights within the range of torch.float16"):
        save_compact(model, tmp_path / "half.st", dtype="float16")


@torch.no_grad()
def test_size_at_fifty_times_compression(tmp_path: Path) -> None:
    """All but two percent dropped at random: eight bytes a weight and about one for where."""
    net: Any = nn.Sequential(cplx.CplxLinearMasked(1500, 700), cplx.CplxToReal())
    net[0].mask = net[0].weight.abs() >= net[0].weight.abs().flatten().topk(21_000).values[-1]
    dense = 8 * (1500 * 700 + 700)
    for dtype, least in (("float32", 35), ("float16", 55)):
        save_compact(compact(net, measure=False), tmp_path / dtype, dtype=dtype)  # type: ignore[arg-type]
        assert dense / (tmp_path / dtype).stat().st_size > least


def test_every_altered_byte_and_every_cut_is_refused(saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for position in [
        *range(0, 40),
        *torch.randint(len(content), (60,), generator=generator).tolist(),
    ]:
        altered = bytearray(content)
        altered[position] ^= 1 << position % 8
        (tmp_path / "altered").write_bytes(altered)
        with pytest.raises(CompactFileError, match="altered: expected a compact network"):
            load_compact(tmp_path / "altered", measure=False)
    for length in (0, 7, 8, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "cut").write_bytes(content[:length])
        with pytest.raises(CompactFileError, match="cut: expected a compact network"):
            load_compact(tmp_path / "cut", measure=False)
    (tmp_path / "long").write_bytes(content + b"\0")
    with pytest.raises(CompactFileError, match="long: expected a compact network"):
        load_compact(tmp_path / "long", measure=False)


def test_other_files_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_compact(tmp_path / "nowhere")
    torch.save({"w": torch.zeros(3)}, tmp_path / "snapshot.pt")
    with pytest.raises(CompactFileError, match=r"snapshot.pt: expected a compact network"):
        load_compact(tmp_path / "snapshot.pt")
    safetensors.torch.save_file({"w": torch.zeros(3)}, tmp_path / "other.st")
    with pytest.raises(CompactFileError, match="metadata of nothing"):
        load_compact(tmp_path / "other.st")
    with pytest.raises(TypeError, match=r"got Linear; try save_compact\(compact\(model\)\)"):
        save_compact(nn.Linear(2, 2), tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="float32 or float16, got 'int8'"):
        save_compact(example(), tmp_path / "x", dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="metadata of text to text"):
        save_compact(example(), tmp_path / "x", metadata={"C": 0.1})  # type: ignore[dict-item]
    assert not (tmp_path / "x").exists()


def crafted(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], object]) -> None:
    """Change a file's description and tensors, and compute its checksum anew."""
    with safetensors.safe_open(path, "pt") as file:
        header, tensors = file.metadata(), {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    described = json.loads(header[FORMAT].partition(" ")[2])
    change(described["network"], tensors)
    text = json.dumps(described)
    safetensors.torch.save_file(tensors, path, {FORMAT: f"{_digest(text, tensors)} {text}"})


HOSTILE: tuple[Any, ...] = (None, -1, 10**18, 10**30, 0.5, 1e400, True, "x", [], {}, [[]])
KEYS = (
    *("name", "shape", "complex", "positions", "stride", "padding", "dilation", "whole"),
    *("relu", "pool", "real_part", "in_channels", "stages"),
)


@pytest.mark.parametrize("key", KEYS)
def test_a_crafted_file_with_a_right_checksum_is_refused(saved: Path, key: str) -> None:
    """Whoever computes the checksum anew can neither make a network read beyond its tensors, nor
    make room for what the file only claims; what is no fault of shape or size loads.
    """
    content = saved.read_bytes()
    values = [*HOSTILE, [10**6] * 3, [20, 5, 7], [20, 6, 7, 1], ["average", 10**9, 1], ["x", 1, 1]]
    for value in values:

        def change(network: dict[str, Any], tensors: dict[str, Tensor], value: Any = value) -> None:
            place = network if key in network else network["stages"][1]
            place[key] = value

        saved.write_bytes(content)
        crafted(saved, change)
        try:
            model = load_compact(saved, batch_sizes=(1,))
            with torch.no_grad():
                assert model(torch.randn(2, 1, 32, dtype=torch.complex64)).shape == (2, 4)
        except CompactFileError as error:
            assert "net.safetensors: expected a compact network" in str(error)


@pytest.mark.parametrize("key", ["0.values", "1.bias", "0.mix"])
def test_numbers_that_are_not_finite_are_refused(saved: Path, key: str) -> None:
    crafted(saved, lambda network, tensors: tensors[key].view(-1)[:1].fill_(torch.nan))
    with pytest.raises(CompactFileError, match=f"finite numbers in {key[2:]}, got NaN"):
        load_compact(saved)


def test_a_claim_beyond_memory_is_refused_before_anything_is_allocated(saved: Path) -> None:
    crafted(saved, lambda network, _: network["stages"][1].update(shape=[10**4, 10**4, 10**4]))
    with pytest.raises(
        CompactFileError, match=r"expected .* weights at most in a file of .* bytes"
    ):
        load_compact(saved)


def test_a_window_beyond_memory_is_refused(saved: Path) -> None:
    crafted(saved, lambda network, _: network["stages"][0].update(stride=10**8))
    with pytest.raises(CompactFileError, match="activations in a layer at most"):
        load_compact(saved)


def test_sizes_that_are_no_numbers_are_refused_before_they_are_multiplied(saved: Path) -> None:
    """2^25 times a list is a list of 2^25 repetitions."""
    crafted(saved, lambda network, _: network["stages"][1].update(shape=[2**25, [0, 0, 0]]))
    tracemalloc.start()
    with pytest.raises(CompactFileError, match="expected whole numbers"):
        load_compact(saved)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.003, 0.02, 0.3, 1.0])
def test_positions_and_their_bytes(share: float) -> None:
    n = 200_003
    kept = torch.rand(n) < share
    kept[[0, -1]] = share > 0
    form, stored = encode(kept)
    assert torch.equal(decode(form, stored, n), kept.nonzero().flatten())
    wanted = {0.0005: "steps16", 0.003: "steps8", 0.02: "steps8", 0.3: "bits", 1.0: "all"}
    assert form == wanted.get(share, form)
    if form == "steps8":  # at most a byte each, and one for every 255 dropped
        assert stored.nbytes <= int(kept.sum()) + n // 255
    if len(stored):
        with pytest.raises(ValueError, match="expected positions below 9, got"):
            decode("bits", torch.full((20,), 255, dtype=torch.uint8), 9)


def test_steps_by_hand() -> None:
    kept = torch.zeros(3000, dtype=torch.bool)
    kept[[0, 3, 258, 514, 2999]] = (
        True  # 0, 2, 254, 255 and 2484 = 9 * 255 + 189 dropped before them
    )
    form, stored = encode(kept)
    assert (form, stored.dtype) == ("steps16", torch.uint16) and stored.tolist() == [
        0,
        2,
        254,
        255,
        2484,
    ]
    steps8 = torch.tensor([0, 2, 254, 255, 0, *[255] * 9, 189], dtype=torch.uint8)
    assert decode("steps8", steps8, 3000).tolist() == [0, 3, 258, 514, 2999]
    with pytest.raises(ValueError, match="all, bits, steps8, steps16, got 'pickle'"):
        decode("pickle", stored, 3000)
