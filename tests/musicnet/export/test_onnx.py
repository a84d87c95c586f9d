"""ONNX files of networks, run by onnxruntime, held to the networks themselves."""

import json
import resource
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from cplxnet import nn
from cplxnet.musicnet import MusicNet, build, features
from cplxnet.musicnet.export import OnnxNetwork, UnknownLayerError, export_onnx
from cplxnet.musicnet.transcription.windows import transcribe

COMPLEX_TYPES = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)


def network(name: str, *, window: int = 512, **heard: object) -> torch.nn.Module:
    """A network, in evaluation, whose weights, statistics and masks are not where they start."""
    example = features(torch.randn(8, window), **heard)
    made = build(name, example)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        for layer in made.modules():
            if hasattr(layer, "mask"):
                layer.mask = torch.rand(layer.mask.shape) < 0.05
        made.train()(example)  # running statistics of batch norm
    return made.eval()


def difference(
    made: OnnxNetwork, model: torch.nn.Module, signal: torch.Tensor, **heard: object
) -> float:
    x = features(signal, **heard)
    with torch.no_grad():
        return float((made(signal if made.raw_audio else x) - model(x)).abs().max())


@pytest.mark.parametrize("kind", ["", "VD", "Masked"])
@pytest.mark.parametrize(
    "name", ["complex.DeepConvNet", "complex.ShallowConvNet", "real.DeepConvNet"]
)
def test_logits_differ_by_less_than_1e_4(tmp_path: Path, name: str, kind: str) -> None:
    window, raw_audio = 1024, kind == "VD"
    model = network(f"{name}{kind}", window=window)
    made = OnnxNetwork(
        export_onnx(model, tmp_path / "net.onnx", window=window, raw_audio=raw_audio)
    )
    assert made.inputs == (["signal"] if raw_audio else ["real", "imag"])
    for n in (1, 3, 8):  # the batch axis is dynamic
        assert difference(made, model, torch.randn(n, window)) < 1e-4


@pytest.mark.parametrize("field", ["complex", "real"])
@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("DeepConvNet", "Masked"),
        ("DeepConvNet", "VD"),
        ("ShallowConvNet", "VD"),
        ("TwoLayerDense", "Masked"),
    ],
)
def test_compact_networks(tmp_path: Path, architecture: str, field: str, kind: str) -> None:
    """The file of a compact network, against the masked network that it was made of."""
    raw_audio = kind == "VD"
    model = network(f"{field}.{architecture}{kind}", window=1024)
    masked = network(f"{field}.{architecture}Masked", window=1024)
    with torch.no_grad():
        for layer in (layer for layer in model.modules() if hasattr(layer, "log_sigma2")):
            layer.log_sigma2.fill_(-8).masked_fill_(torch.rand(layer.log_sigma2.shape) < 0.9, 5)
    masked.load_state_dict(model.state_dict(), strict=False)
    nn.deploy_masks(masked, nn.relevance_masks(model, -0.5)) if kind == "VD" else None

    small = nn.compact(model, threshold=-0.5, measure=False)
    made = OnnxNetwork(export_onnx(small, tmp_path / "net.onnx", window=1024, raw_audio=raw_audio))
    for n in (1, 5):
        assert difference(made, masked, torch.randn(n, 1024)) < 1e-4


def test_a_compact_network_that_ends_in_a_convolution(tmp_path: Path) -> None:
    layers = [
        nn.CplxConv1d(1, 4, 5),
        nn.CplxBatchNorm1d(4),
        nn.CplxConv1d(4, 3, 3),
        nn.CplxToReal(),
    ]
    model = torch.nn.Sequential(*layers).eval()
    small = nn.compact(model, measure=False)
    made = OnnxNetwork(export_onnx(small, tmp_path / "net.onnx", window=50))
    assert difference(made, model, torch.randn(3, 50)) < 1e-4


@pytest.mark.parametrize("cplx", [True, False])
@pytest.mark.parametrize(
    ("field", "kind", "raw_audio"),
    [
        ("complex", "raw", True),
        ("complex", "fft", True),
        ("real", "fft", True),
        ("complex", "stft", True),
        ("real", "stft", False),
    ],
)
def test_every_kind_of_features(
    tmp_path: Path, field: str, kind: str, cplx: bool, raw_audio: bool
) -> None:
    heard = {"kind": kind, "cplx": cplx, "shift": cplx}
    model = network(f"{field}.TwoLayerDense", **heard)
    made = OnnxNetwork(
        export_onnx(model, tmp_path / "net.onnx", window=512, raw_audio=raw_audio, **heard)
    )
    assert made.heard == {"window": 512, "rate_hz": 11_000, **heard}
    assert difference(made, model, torch.randn(4, 512), **heard) < 1e-4


def test_real_windows(tmp_path: Path, tiny_corpus: Path) -> None:
    """The full network on windows of recordings, 4096 samples long."""
    data = MusicNet(tiny_corpus / "musicnet_11khz_test.h5")
    signal = data.windows(torch.arange(0, len(data), len(data) // 6))[0]
    model = network("complex.DeepConvNetMasked", window=4096)
    made = OnnxNetwork(export_onnx(model, tmp_path / "net.onnx", raw_audio=True))
    assert difference(made, model, signal) < 1e-4


def test_the_file_is_real_checked_and_says_what_it_hears(tmp_path: Path) -> None:
    path = export_onnx(
        network("complex.TwoLayerDense"), tmp_path / "net.onnx", window=512, raw_audio=True
    )
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    types = {value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    types |= {constant.data_type for constant in inferred.graph.initializer}
    assert types and types.isdisjoint(COMPLEX_TYPES)
    assert b".py" not in path.read_bytes()  # torch's notes on where in the source a node was made
    assert [(entry.domain, entry.version) for entry in inferred.opset_import] == [("", 20)]
    (given,), (result,) = inferred.graph.input, inferred.graph.output
    shapes = [
        [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (given, result)
    ]
    assert shapes == [["batch", 512], ["batch", 84]] and result.name == "logits"
    told = json.loads({entry.key: entry.value for entry in inferred.metadata_props}["cplxnet"])
    assert told["window"] == 512 and told["raw_audio"] is True


def test_masked_weights_are_stored_by_what_is_left(tmp_path: Path) -> None:
    dense, masked = (network(f"complex.TwoLayerDense{kind}") for kind in ("", "Masked"))
    sizes = [
        export_onnx(model, tmp_path / "net.onnx", window=512).stat().st_size
        for model in (dense, masked)
    ]
    n_weights, n_biases = 2048 * (512 + 84), 2048 + 84
    assert sizes[0] == pytest.approx(8 * (n_weights + n_biases), rel=0.01)
    n_kept = sum(int(layer.mask.sum()) for layer in masked.modules() if hasattr(layer, "mask"))
    assert sizes[1] == pytest.approx(12 * n_kept + 8 * n_biases, rel=0.02)  # two parts and an index
    assert sizes[1] < sizes[0] / 10


def hand_made(layers: list[torch.nn.Module]) -> torch.nn.Sequential:
    return torch.nn.Sequential(
        *layers, nn.CplxFlatten(), nn.CplxModulus(), torch.nn.LazyLinear(5)
    ).eval()


@pytest.mark.parametrize(
    "layers",
    [
        [
            nn.CplxConv1d(1, 4, 5, padding=2, dilation=2),
            nn.CplxBatchNorm1d(4),
            nn.Split(torch.nn.Tanh()),
        ],
        [nn.CplxConv1d(1, 4, 5, padding="same"), nn.CplxConv1d(4, 6, 3, padding="valid", groups=2)],
        [
            nn.CplxBatchNorm1d(1, affine=False),
            nn.Split(torch.nn.AvgPool1d(4, 3, padding=1, count_include_pad=False)),
        ],
        [
            nn.Split(torch.nn.MaxPool1d(3, 2, ceil_mode=True)),
            nn.CplxDropout(),
            nn.Split(torch.nn.LeakyReLU(0.2)),
        ],
        [nn.CplxConv1d(1, 4, 5, padding=2, padding_mode="circular"), nn.CplxModReLU(channels=4)],
        [nn.CplxModReLU(0.3), nn.Split(torch.nn.Conv1d(1, 2, 3)), nn.Split(torch.nn.GELU())],
        [nn.CplxFlatten(), nn.CplxLinear(50, 6), nn.CplxBatchNorm1d(6), nn.CplxLinear(6, 3)],
        [
            nn.CplxModulus(),
            torch.nn.LayerNorm(50),
            torch.nn.Conv1d(1, 4, 3, padding_mode="reflect", padding=1),
            nn.RealToCplx(halves=True),
        ],
    ],
)
def test_geometry_of_layers(tmp_path: Path, layers: list[torch.nn.Module]) -> None:
    model = hand_made(layers)
    signal = torch.randn(3, 50)
    model(features(signal))  # the last layer's width
    for layer in layers:
        if isinstance(layer, nn.CplxBatchNorm1d):
            layer.running_var.copy_(torch.tensor([[2.0, 0.5], [0.5, 1.0]]).unsqueeze(-1))
            layer.running_mean.normal_()
    made = OnnxNetwork(export_onnx(model, tmp_path / "net.onnx", window=50))
    assert difference(made, model, signal) < 1e-4


def test_an_unknown_layer_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    class Conjugate(torch.nn.Module):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z.conj()

    class Doubled(nn.CplxConv1d):
        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(z)

    first = nn.CplxConv1d(1, 4, 5)
    own = torch.nn.Sequential(first, torch.nn.Sequential(Conjugate()), nn.CplxToReal()).train()
    no_statistics = torch.nn.Sequential(first, nn.CplxBatchNorm1d(4, track_running_stats=False))
    for model, text in [
        (own, r"1\.0: expected .*, got Conjugate\(\) on \(2, 4, 4092\)"),
        (no_statistics, "1: expected running statistics"),
        (torch.nn.Sequential(first), "real outputs"),
        (torch.nn.Sequential(Doubled(1, 4, 5), nn.CplxToReal()), "a forward of its own"),
    ]:
        with pytest.raises(UnknownLayerError, match=text):
            export_onnx(model, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == [] and own.training


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = network("complex.TwoLayerDense")
    with torch.no_grad():
        model.fc1.weight_ri[0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="finite weights, got NaN or infinite logits"):
        export_onnx(model, tmp_path / "net.onnx", window=512)
    assert list(tmp_path.iterdir()) == []


def test_random_numbers_are_left_alone(tmp_path: Path) -> None:
    model = network("real.TwoLayerDense")
    before = torch.get_rng_state()
    export_onnx(model, tmp_path / "net.onnx", window=512)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_of_the_older_exporter_is_read(tmp_path: Path) -> None:
    """`older_exporter.onnx` was written of this network before `torch.onnx.export` was used."""
    model = torch.nn.Sequential(
        nn.CplxConv1d(1, 2, 3, stride=2),
        nn.CplxBatchNorm1d(2),
        nn.Split(torch.nn.ReLU()),
        torch.nn.Flatten(),
        nn.CplxLinear(14, 5),
        nn.CplxToReal(),
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.linspace(-0.5, 0.7, parameter.numel()).view(parameter.shape))
    older = OnnxNetwork(Path(__file__).with_name("older_exporter.onnx"))
    newer = OnnxNetwork(export_onnx(model, tmp_path / "n.onnx", window=16, raw_audio=True))
    signal = torch.randn(6, 16)
    assert older.heard == newer.heard and older.inputs == newer.inputs
    assert difference(older, model, signal) < 1e-4 and difference(newer, model, signal) < 1e-4


def test_files_that_are_no_networks_of_ours(tmp_path: Path) -> None:
    path = export_onnx(network("complex.TwoLayerDense"), tmp_path / "net.onnx", window=512)
    made = OnnxNetwork(path)
    with pytest.raises(ValueError, match=r"expected real and imag, got torch.float32"):
        made(torch.zeros(1, 512))
    (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(
        ValueError, match=r"cut\.onnx: expected an ONNX file that onnxruntime can open"
    ):
        OnnxNetwork(tmp_path / "cut.onnx")
    foreign = onnx.load(path)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="expected an ONNX file of cplxnet's export_onnx"):
        OnnxNetwork(tmp_path / "foreign.onnx")
    with pytest.raises(FileNotFoundError, match="nothing there"):
        OnnxNetwork(tmp_path / "none.onnx")


def test_the_transform_inside_is_numpys(tmp_path: Path) -> None:
    """The moduli of the shifted spectrum of 4096 samples, against numpy in double precision."""
    model = torch.nn.Sequential(nn.CplxFlatten(), nn.CplxModulus())
    made = OnnxNetwork(export_onnx(model, tmp_path / "net.onnx", raw_audio=True))
    signal = torch.randn(2, 4096)
    want = np.abs(np.fft.fftshift(np.fft.fft(signal.numpy().astype(np.float64)), -1))
    np.testing.assert_allclose(made(signal).numpy(), want, atol=1e-6 * want.max())


@pytest.mark.parametrize(
    "about",
    [
        "no JSON",
        "[]",
        "[" * 100_000,
        "null",
        "{}",
        {"window": 10**18},
        {"window": 0},
        {"window": "512"},
        {"window": True},
        {"window": 1024},  # the network's inputs are of 512
        {"kind": "stft"},
        {"kind": "eval"},
        {"cplx": False},
        {"rate_hz": 0},
        {"raw_audio": True},
        {"further": 1},
    ],
)
def test_metadata_is_not_trusted(
    tmp_path: Path, exported: onnx.ModelProto, about: str | dict[str, object]
) -> None:
    (entry,) = exported.metadata_props
    told = json.dumps({**json.loads(entry.value), **about}) if isinstance(about, dict) else about
    foreign = onnx.ModelProto()
    foreign.CopyFrom(exported)
    foreign.metadata_props[0].value = told
    onnx.save(foreign, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"net\.onnx: expected (what the network hears|inputs)"):
        OnnxNetwork(tmp_path / "net.onnx")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The file of a small network of complex features."""
    model = torch.nn.Sequential(nn.CplxFlatten(), nn.CplxLinear(512, 84), nn.CplxToReal())
    path = tmp_path_factory.mktemp("exported") / "net.onnx"
    return onnx.load(export_onnx(model, path, window=512))


def test_a_graph_that_asks_for_all_memory_gets_none_of_it(
    tmp_path: Path, exported: onnx.ModelProto
) -> None:
    """64 GiB, where the file has half a megabyte."""
    greedy = onnx.ModelProto()
    greedy.CopyFrom(exported)
    shape = np.array([1 << 14, 1 << 20], np.int64)
    greedy.graph.initializer.append(onnx.numpy_helper.from_array(shape, "shape"))
    output = greedy.graph.output[0].name
    (last,) = (node for node in greedy.graph.node if output in node.output)
    last.output[0] = "small"
    for kind, inputs, result in (
        ("ConstantOfShape", ["shape"], "large"),
        ("ReduceSum", ["large"], "sum"),
        ("Add", ["small", "sum"], output),
    ):
        options = {"keepdims": 0} if kind == "ReduceSum" else {}
        greedy.graph.node.append(onnx.helper.make_node(kind, inputs, [result], **options))
    onnx.save(greedy, tmp_path / "net.onnx")

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    network = OnnxNetwork(tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"net\.onnx: expected a network that onnxruntime can run"):
        network(torch.zeros(1, 1, 512, dtype=torch.complex64))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB


def test_a_network_of_nan_transcribes_nothing(tmp_path: Path, exported: onnx.ModelProto) -> None:
    damaged = onnx.ModelProto()
    damaged.CopyFrom(exported)
    largest = max(damaged.graph.initializer, key=lambda weight: len(weight.raw_data))
    values = np.frombuffer(largest.raw_data, np.float32).copy()
    values[7] = np.nan
    largest.raw_data = values.tobytes()
    onnx.save(damaged, tmp_path / "net.onnx")
    network = OnnxNetwork(tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="expected finite logits from the network, got"):
        transcribe(network, np.ones(2000, np.float32), window=512, progress=False)


@pytest.mark.parametrize("name", ["conv1.weight_ri", "norm1.weight", "fc1.bias_ri"])
def test_nan_that_a_relu_hides_is_refused_too(tmp_path: Path, name: str) -> None:
    model = network("complex.DeepConvNet", window=1024)
    with torch.no_grad():
        dict(model.named_parameters())[name].view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="expected a network of finite weights"):
        export_onnx(model, tmp_path / "net.onnx", window=1024)
    assert list(tmp_path.iterdir()) == []
