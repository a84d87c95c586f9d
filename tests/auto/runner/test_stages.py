"""What a stage takes over from the one before, and what tells two stages apart."""

import pytest
import torch
from small import C, small
from torch import nn

from cplxnet import nn as cplx
from cplxnet.auto.manifest.read import Manifest, parse
from cplxnet.auto.runner.stages import NOT_COUNTED, counts, inherit, key_of, planned, seed_of
from cplxnet.musicnet import MODELS

KINDS = ("", "VD", "Masked")


def net(kind: str) -> nn.Sequential:
    return nn.Sequential(
        getattr(cplx, f"CplxConv1d{kind}")(1, 3, 4),
        cplx.CplxBatchNorm1d(3),
        cplx.Split(nn.ReLU()),
        nn.Flatten(),
        getattr(cplx, f"CplxLinear{kind}")(15, 2),
    )


# -- seeds and keys --------------------------------------------------------------------------------


def test_seeds_are_reproducible_and_all_different():
    manifests = [small({"seed": seed}) for seed in range(3)]
    cases = [
        (m, stage, purpose)
        for m in manifests
        for stage in m.stage_order
        for purpose in ("weights", "windows", "noise")
    ]
    seeds = [seed_of(*case) for case in cases]
    assert seeds == [seed_of(*case) for case in cases]
    assert len(set(seeds)) == len(cases)
    assert all(0 <= seed < 2**63 for seed in seeds)
    for seed in seeds:
        torch.Generator().manual_seed(seed)  # which takes no larger ones


def test_seeds_depend_on_nothing_else():
    assert seed_of(small(), "dense", "noise") == seed_of(
        small({C: 1.0, "threshold": 3.0}), "dense", "noise"
    )


def key(changes=None, stage="dense", *, previous=None, data=None, device="cpu"):
    return key_of(
        small(changes), stage, previous=previous, data=data or {"train": "x"}, device=device
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"threshold": 0.0},
        {"datasets.train.stride": 2},
        {"features.shift": False},
        {"features.kind": "raw"},
        {"feeds.train.n_batches": 4},
        {"scorers.test.curves": False},
        {"model.name": "real.TwoLayerDense"}
        | {f"stages.{name}.model": {} for name in ("sparsify", "fine-tune")}
        | {C: 0.0},
        {"stages.dense.n_epochs": 3},
        {"stages.dense.optimizer.lr": 2e-3},
        {"stages.dense.lr_scheduler": None},
        {"stages.dense.grad_clip": 0.1},
        {"stages.dense.early.patience": 19},
        {"stages.dense.objective.loss": 0.5},
        {"objective_terms.loss.coef": 2.0},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_dense_key_changes_with_what_dense_depends_on(changes):
    assert key(changes) != key()


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "another name"},
        {C: 0.7},
        {"objective_terms.kl_div.coef": 1e-3},
        {"stages.sparsify.n_epochs": 9},
        {"stages.fine-tune.restart": False},
        {"task": "musicnet"},  # the default written out
        {"features.cplx": True, "stages.dense.reset": False},
        {"stages.dense.objective.kl_div": 0.0},  # weighs nothing
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_the_dense_key_does_not_change_with_anything_else(changes):
    assert key(changes) == key()


def test_keys_change_with_data_device_and_the_stage_before():
    keys = {
        key(),
        key(data={"train": "y"}),
        key(device="cuda:0"),
        key(previous="a"),
        key(previous="b"),
    }
    assert len(keys) == 5
    assert key(device="cuda:0") == key(device="cuda:1")  # machines of one kind


def test_the_sparsify_key_changes_with_its_own_settings():
    assert key({C: 0.7}, "sparsify") != key(stage="sparsify")
    assert key({"objective_terms.kl_div.coef": 1e-3}, "sparsify") != key(stage="sparsify")
    assert key({"stages.fine-tune.n_epochs": 9}, "sparsify") == key(stage="sparsify")


def test_the_key_is_of_the_experiment_not_of_how_it_is_written():
    manifest, options = small(), {"previous": None, "data": {}, "device": "cpu"}
    for stage in manifest.stage_order:
        assert key_of(manifest, stage, **options) == key_of(manifest.resolved(), stage, **options)


class Wider:
    """A manifest of a later version, with a key that this one does not know."""

    def __init__(self, value):
        self.manifest, self.value = small(), value
        self.stage_order = self.manifest.stage_order

    def stage(self, name):
        return self.manifest.stage(name)

    def resolved(self):
        return self

    def to_dict(self):
        return self.manifest.resolved().to_dict() | {"a_new_key": self.value}


def test_a_new_key_of_the_manifest_counts_by_default():
    options = {"previous": None, "data": {}, "device": "cpu"}
    keys = [key_of(manifest, "dense", **options) for manifest in (small(), Wider(1), Wider(2))]
    assert len(set(keys)) == 3


def test_what_does_not_count_are_keys_of_the_manifest():
    names = {field.alias or name for name, field in Manifest.model_fields.items()}
    assert set(NOT_COUNTED) < names


@pytest.mark.parametrize("samples", ["float16", "int16"])
def test_the_plan_tells_stages_apart_by_how_recordings_are_held(samples):
    """`run_many` said "50% fewer" of stages that are not shared."""
    plans = [
        [shared.key for _, shared in planned(small(changes))]
        for changes in ({}, {"samples": "float32"}, {"samples": samples})
    ]
    assert plans[0] == plans[1] and not set(plans[0]) & set(plans[2])


def test_the_plan_has_the_keys_that_a_run_has():
    manifest, data = small(), {"train": "x"}
    previous = None
    for stage, shared in planned(manifest, data=data, device="cuda:1"):
        previous = key_of(manifest, stage.name, previous=previous, data=data, device="cuda:0")
        assert shared.key == previous


def test_keys_of_finished_runs_stay_what_they_were(monkeypatch):
    """As the versions before 2026-12 worked them out: stages of theirs are taken over."""
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    keys = [shared.key[:16] for _, shared in planned(small({"seed": 3}))]
    assert keys == ["ca1f6e42b4d5e15c", "ba792ac745d3c119", "421d837ad7c45202"]


def test_names_of_stages_count_since_random_numbers_come_from_them():
    def keys(*names):
        raw = small().to_dict()
        raw["stages"] = dict(zip(names, raw["stages"].values(), strict=True))
        return [shared.key for _, shared in planned(parse(raw | {"stage_order": list(names)}))]

    ours = keys("dense", "sparsify", "fine-tune")
    others = keys("warm-up", "sparsify", "fine-tune")
    assert not set(ours) & set(others)
    assert keys("dense", "prune", "fine-tune")[0] == ours[0]
    assert keys("dense", "prune", "fine-tune")[1] != ours[1]


def test_a_stage_whose_log_sigma2_decayed_in_older_versions_is_another(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    keys = []
    for weight_decay in (0.0, 1e-4):
        adam = {"name": "adam", "lr": 1e-3, "weight_decay": weight_decay}
        keys.append(next(planned(small({"stages.dense.optimizer": adam})))[1].key[:16])
    assert keys[0] == "a423cda94eb6982c"  # as ever
    assert keys[1] != "ece4f38ebd80be71"


def test_a_real_stage_whose_loss_was_bfloat16_in_older_versions_is_another(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0")

    def first(field, products, cplx):
        changes = {"products": products, "features.cplx": cplx}
        return next(planned(small(changes, model=f"{field}.TwoLayerDense")))[1].key[:16]

    # keys of before 2026-11-27: taken where the result is the same
    assert first("complex", "bfloat16", True) == "8f7aa6c6237237fe"
    assert first("real", "float32", False) == "f7bc1a906724ad1b"

    # theirs, on moduli and on real and imaginary parts
    assert first("real", "bfloat16", False) != "e9d180aa0c53c1fa"
    assert first("real", "bfloat16", True) != "1fa7802805bfbfc5"


def test_a_stage_that_was_handed_other_weights_in_older_versions_is_another(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    model, log_sigma2 = "stages.fine-tune.model.name", "stages.fine-tune.log_sigma2"
    vd = "complex.TwoLayerDenseVD"
    masked = {
        "stages.sparsify.model.name": "complex.TwoLayerDenseMasked",
        "stages.sparsify.objective": {"loss": 1.0},
        "stages.sparsify.pruner": {"name": "one-shot", "sparsity": 0.5},
    }

    def last(changes):
        return list(planned(small(changes)))[-1][1].key[:16]

    # keys of before 2026-11-28: taken where the result is the same
    assert last(masked) == "d679c1db9eb8b18f"
    assert last(masked | {model: vd}) != "b416f25d1b870396"
    assert last(masked | {model: vd, "stages.fine-tune.reset": True}) == "d1b63ef264cebf7e"
    assert last({model: vd}) == "2db54a7b310d3994"
    assert last({model: vd, log_sigma2: -8.0}) != "c77027ab8f80da81"


# -- inheritance -----------------------------------------------------------------------------------


def test_weights_and_statistics_go_from_dense_to_variational_to_masked():
    dense, vd, masked = (net(kind) for kind in KINDS)
    dense[1].running_mean.uniform_()
    assert inherit(vd, dense, threshold=-0.5) is False
    assert all(
        torch.equal(vd.state_dict()[name], value) for name, value in dense.state_dict().items()
    )
    assert all((layer.log_sigma2 == -10).all() for layer in (vd[0], vd[4]))

    with torch.no_grad():
        for layer in (vd[0], vd[4]):
            layer.log_sigma2.uniform_(-6, 2)
    assert inherit(masked, vd, threshold=-0.5) is True
    for i in (0, 4):
        weight = vd[i].weight.detach()
        keep = vd[i].log_sigma2.detach() - 2 * weight.abs().log() <= -0.5  # log_alpha, as defined
        assert 0 < keep.sum() < keep.numel()
        assert torch.equal(masked[i].mask, keep)
        assert torch.equal(masked[i].weight, torch.where(keep, weight, 0))
        assert torch.equal(masked[i].bias_ri, vd[i].bias_ri)
    assert torch.equal(masked[1].running_mean, dense[1].running_mean)


def test_the_threshold_decides():
    vd = net("VD")
    with torch.no_grad():
        vd[0].log_sigma2.uniform_(-6, 2)
    kept = []
    for threshold in (-3.0, 0.0, 50.0):
        masked = net("Masked")
        inherit(masked, vd, threshold=threshold)
        kept.append(int(masked[0].mask.sum()))
    assert kept[0] < kept[1] < kept[2] == vd[0].weight.numel()


def test_masks_go_on_from_masked_to_masked():
    first, second = net("Masked"), net("Masked")
    first[4].mask = torch.rand(2, 15) > 0.5
    assert inherit(second, first, threshold=-0.5) is True
    assert torch.equal(second[4].mask, first[4].mask)


def test_a_dense_network_has_no_masks_to_give():
    dense, masked = net(""), net("Masked")
    assert inherit(masked, dense, threshold=-0.5) is False
    assert masked[0].mask.all() and torch.equal(masked[0].weight, dense[0].weight)


@pytest.mark.parametrize("kind", ["", "VD", "Masked"])
def test_what_momentum_has_done_to_a_masked_weight_is_not_handed_on(kind):
    """A masked network computes the same as the one without masks that begins from it."""
    masked, after = net("Masked"), net(kind)
    masked[4].mask = torch.rand(2, 15) > 0.5
    assert masked[4].weight[~masked[4].mask].all()
    inherit(after, masked, threshold=-0.5)
    x = torch.randn(3, 15, dtype=torch.complex64)
    torch.testing.assert_close(after.eval()[4](x), masked.eval()[4](x))
    assert torch.equal(after[4].weight != 0, masked[4].mask)


def test_posteriors_go_on_in_another_variational_network_or_begin_anew():
    for kind, own in (("VD", "log_sigma2"), ("GroupVD", "log_sigma2_out"), ("L0", "gate_logit")):
        before = net(kind)
        with torch.no_grad():
            before[4].get_parameter(own).uniform_(-3, -1)
        gates = before[4].gate.detach() if kind == "L0" else 1
        for posteriors in (True, False):
            after = net(kind)
            start = after[4].get_parameter(own).detach().clone()
            inherit(after, before, threshold=-0.5, posteriors=posteriors)
            value = after[4].get_parameter(own)
            assert torch.equal(value, before[4].get_parameter(own) if posteriors else start)
            # gates that are opened again do not bring back what they had shut out
            weight = before[4].weight * (1 if posteriors else gates)
            assert torch.equal(after[4].weight, weight)


def test_what_is_inherited_is_a_copy():
    dense, vd = net(""), net("VD")
    inherit(vd, dense, threshold=-0.5)
    with torch.no_grad():
        dense[0].weight_ri.zero_()
    assert vd[0].weight_ri.any()


def test_networks_of_other_layers_are_an_error():
    other = net("VD")
    other.append(cplx.CplxLinearVD(2, 2))
    with pytest.raises(
        ValueError,
        match=r"differ in log_sigma2, .*gate_logit, mask only, got .*5\.weight_ri, 5\.bias_ri",
    ):
        inherit(other, net(""), threshold=-0.5)


def test_networks_of_other_shapes_are_an_error():
    other = net("VD")
    other[4] = cplx.CplxLinearVD(15, 3)
    with pytest.raises(ValueError, match=r"(?s)weights of one shape, got .*4\.weight_ri"):
        inherit(other, net(""), threshold=-0.5)


# -- counts ----------------------------------------------------------------------------------------


def test_counts_of_a_dense_network():
    # conv 3*1*4 weights and 3 biases, norm 3*4 + 3*2, linear 2*15 and 2; complex numbers count two
    expected = {"0": 2 * (12 + 3), "1": 3 * (4 + 2), "4": 2 * (30 + 2)}
    found = counts(net(""), -0.5)
    assert found["layers"] == {name: {"n_par": n, "n_zero": 0} for name, n in expected.items()}
    assert (found["n_par"], found["n_zero"], found["compression"]) == (
        sum(expected.values()),
        0,
        1.0,
    )
    assert counts(net("VD"), 50.0) == counts(net("Masked"), 0.0) == found


def test_counts_against_brute_force():
    vd, masked = net("VD"), net("Masked")
    with torch.no_grad():
        for layer in (vd[0], vd[4]):
            layer.log_sigma2.uniform_(-6, 2)
    inherit(masked, vd, threshold=-0.5)
    n_zero = 0
    for layer in (masked[0], masked[4]):
        n_zero += sum(2 for weight in layer.weight.flatten().tolist() if weight == 0)
    n_par = sum(p.numel() for p in masked.parameters())
    for found in (counts(vd, -0.5), counts(masked, -0.5)):
        assert (found["n_par"], found["n_zero"]) == (n_par, n_zero)
        assert found["compression"] == pytest.approx(n_par / (n_par - n_zero))
        assert sum(layer["n_zero"] for layer in found["layers"].values()) == n_zero


@pytest.mark.slow
def test_the_deep_network_has_as_many_parameters_as_published():
    found = counts(MODELS["complex.DeepConvNet"](), -0.5)
    assert found["n_par"] == 15_742_344
    assert sum(layer["n_par"] for layer in found["layers"].values()) == 15_742_344
