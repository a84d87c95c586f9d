"""The manifest's keys `products` and `compile`: faster forward passes that change nothing else."""

import functools

import pytest
import torch
from small import quick, small
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cplxnet import nn as cplx
from cplxnet.auto.runner import trainer
from cplxnet.auto.train import precision
from cplxnet.musicnet import networks

PRODUCTS = ("mm", "addmm", "bmm", "convolution", "mkldnn_convolution")


class Types(TorchDispatchMode):
    """(operation, whether it saw bfloat16) of all that are not a cast, a view or a copy."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        name = function.overloadpacket.__name__
        if not function.is_view and name not in ("_to_copy", "clone", "copy_"):
            self.seen.add((name, any(tensor.dtype == torch.bfloat16 for tensor in tensors)))
        return out


def network(kind):
    torch.manual_seed(0)
    example = torch.zeros(1, 1, 512, dtype=torch.complex64)
    return networks.build(f"complex.TwoLayerDense{kind}", example)


def built(kind, **options):
    model = network(kind)
    precision.prepare(model, device="cpu", **{"products": "float32", "compiled": False} | options)
    return model


@pytest.mark.parametrize("kind", ["", "VD", "ARD", "Masked"])
def test_bfloat16_is_for_the_products_alone(kind):
    x = torch.randn(20, 1, 512, dtype=torch.complex64)
    outputs, gradients = [], []
    for products in ("float32", "bfloat16"):
        model = built(kind, products=products)
        torch.manual_seed(1)
        with Types() as types:
            output = model(x)
        outputs.append(output)
        output.square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        low = {name for name, bfloat in types.seen if bfloat}
        assert low <= set(PRODUCTS) and bool(low) == (products == "bfloat16"), low
    assert outputs[1].dtype == torch.float32 and not torch.equal(*outputs)
    assert (outputs[1] - outputs[0]).norm() < 0.02 * outputs[0].norm()  # bfloat16 has 8 bits
    assert (gradients[1] - gradients[0]).norm() < 0.03 * gradients[0].norm()


@pytest.mark.parametrize("field", ["real", "complex"])
def test_logits_are_float32_so_that_the_loss_is(field):
    torch.manual_seed(0)
    x = torch.randn(20, 1, 512, dtype=torch.complex64 if field == "complex" else torch.float32)
    model = networks.build(f"{field}.TwoLayerDense", x)
    with torch.no_grad():
        model.fc2.bias.fill_(-5.0)
        model.fc2.weight /= 100
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    silent = torch.zeros(20, 84)
    wanted = loss(model(x), silent).item()  # log(1 + e^-5), nearly

    precision.prepare(model, device="cpu", products="bfloat16", compiled=False)
    logit = model(x)
    assert logit.dtype == torch.float32
    assert loss(logit, silent).item() == pytest.approx(wanted, rel=0.02)


def test_convolutions_in_bfloat16_feed_batch_norm_with_float32():
    torch.manual_seed(0)
    layers = [cplx.CplxConv1dVD(1, 4, 3), cplx.CplxBatchNorm1d(4), cplx.Split(torch.nn.ReLU())]
    model, x = torch.nn.Sequential(*layers), torch.randn(5, 1, 40, dtype=torch.complex64)
    plain = model(x)
    precision.prepare(model, device="cpu", products="bfloat16", compiled=False)
    with Types() as types:
        low = model(x)
    assert {name for name, bfloat in types.seen if bfloat} <= {
        *PRODUCTS,
        "mkldnn_convolution",
        "permute",
    }
    assert low.dtype == torch.complex64 and (low - plain).norm() < 0.05 * plain.norm()


def test_state_and_parameters_keep_their_names():
    plain, chosen = network("VD"), built("VD", products="bfloat16", compiled=True)
    assert list(plain.state_dict()) == list(chosen.state_dict())
    assert [name for name, _ in plain.named_parameters()] == [
        name for name, _ in chosen.named_parameters()
    ]


def test_tf32_is_set_for_a_run_and_put_back():
    places = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [place.allow_tf32 for place in places]
    for on in (True, False):
        with pytest.raises(KeyError), precision.tf32(on):
            assert [place.allow_tf32 for place in places] == [on, on]
            raise KeyError
    assert [place.allow_tf32 for place in places] == before


@pytest.mark.slow
def test_cudnn_is_deterministic_in_a_run_and_put_back(monkeypatch, tiny_corpus, tmp_path):
    for before in (False, True):
        monkeypatch.setattr(torch.backends.cudnn, "deterministic", before)
        with pytest.raises(KeyError), precision.deterministic():
            assert torch.backends.cudnn.deterministic
            raise KeyError
        assert torch.backends.cudnn.deterministic == before

    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    seen, predict = [], trainer.predict

    def watched(*given):
        seen.append(torch.backends.cudnn.deterministic)
        return predict(*given)

    monkeypatch.setattr(trainer, "predict", watched)
    quick(small(), tmp_path / "run", tiny_corpus)
    assert seen and all(seen) and not torch.backends.cudnn.deterministic


def test_a_compiled_network_gives_the_same(monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    x = torch.randn(3, 1, 512, dtype=torch.complex64)
    torch.testing.assert_close(built("", compiled=True)(x), network("")(x), rtol=1e-5, atol=1e-6)


def test_a_network_that_cannot_be_compiled_runs_as_it_is(monkeypatch):
    def broken(graph, inputs):
        raise OSError("no C++ compiler\nfound")

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=broken))
    model, x = built("", compiled=True), torch.randn(3, 1, 512, dtype=torch.complex64)
    with pytest.warns(RuntimeWarning, match="not compiled, training goes on as it is: "):
        first = model(x)
    assert torch.equal(first, network("")(x)) and torch.equal(model(x), first)


def test_the_keys_change_fingerprints_and_results_only_where_they_are_used(tiny_corpus, tmp_path):
    spelt = small({"products": "float32", "compile": False})
    assert spelt.fingerprint() == small().fingerprint()
    low = small({"products": "bfloat16"})
    assert low.fingerprint() != spelt.fingerprint()
    one, other = (quick(m, tmp_path / str(i), tiny_corpus) for i, m in enumerate((spelt, low)))
    for stage in ("dense", "fine-tune"):
        assert one["stages"][stage]["key"] != other["stages"][stage]["key"]
        scores = [
            run["stages"][stage]["scores"]["test"]["end"]["average_precision"]
            for run in (one, other)
        ]
        assert scores[1] == pytest.approx(scores[0], abs=0.05)


# sparse products, of few living weights, are left in float32
@pytest.mark.parametrize(("kept", "rounded"), [(0.3, True), (0.01, False)])
def test_a_shrunk_network_runs_itself_in_the_products_of_the_full_one(kept, rounded):
    x = torch.randn(20, 1, 512, dtype=torch.complex64)
    model = built("Masked", products="bfloat16")
    shapes = {name: model.get_buffer(f"{name}.mask").shape for name in ("fc1", "fc2")}
    cplx.deploy_masks(model, {name: torch.rand(shape) < kept for name, shape in shapes.items()})

    small = cplx.Shrunk(model).network
    with Types() as types:
        output = small(x)
    assert any(bfloat for _, bfloat in types.seen) == rounded
    tolerance = 0.02 * float(output.detach().abs().max())
    torch.testing.assert_close(output, model(x), rtol=0, atol=tolerance)

    with torch.no_grad():
        for p in small.parameters():
            p.zero_()
    assert not small(x).any() and model(x).any()
