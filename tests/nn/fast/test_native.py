"""Compiling the C functions, keeping them, switching them off; the number of threads."""

import ctypes
import hashlib
import math
import os
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from c_functions import in_c, threads
from kl_cases import TERMS, at
from torch import Tensor

from cplxnet import nn as cplx
from cplxnet.nn.fast import native
from cplxnet.nn.fast.dispatch import native_usable
from cplxnet.nn.fast.noise import PairNoise
from cplxnet.nn.kl import Term, penalty_sum


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own and nothing compiled yet; all as before afterwards."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    hasty = [flag if flag != "-O3" else "-O0" for flag in native.FLAGS]  # compiles in a fifth
    monkeypatch.setattr(native, "FLAGS", hasty)
    native.library.cache_clear()
    native.use(True)
    yield tmp_path
    native.library.cache_clear()
    native.use(os.environ.get("CPLXNET_NATIVE", "1") != "0")


def warned() -> list[str]:
    """Use the KL three times, check its value, and give the warnings."""
    weight, spread = at(torch.zeros(100), TERMS["complex-ard"], 0.0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            assert penalty_sum(weight, spread, TERMS["complex-ard"]).item() == pytest.approx(
                100 * math.log(2), rel=1e-5
            )
    return [str(w.message) for w in caught]


WITHOUT = "the C functions of cplxnet cannot be compiled, training will be slower: "


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("CC", "/nonexistent/cc", "no C compiler found"),
        ("PATH", "", "no C compiler found"),
        ("CC", "false", "returned non-zero exit status 1"),
        ("CC", "true", "No such file"),  # says it worked, makes nothing
        ("CC", "cc 'half quoted", "No closing quotation"),
    ],
)
def test_without_a_working_compiler_one_warning(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    if variable == "PATH":
        monkeypatch.delenv("CC", raising=False)
    (message,) = warned()
    assert message.startswith(WITHOUT) and reason in message and "CPLXNET_NATIVE=0" in message
    assert not native_usable(torch.ones(1))
    assert not list(fresh.rglob("*.so"))


@in_c
def test_a_compiler_that_complains_is_quoted(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FLAGS", [*native.FLAGS, "-fno-such-flag"])
    (message,) = warned()
    assert message.startswith(WITHOUT) and "-fno-such-flag" in message


@in_c
def test_made_once_and_kept(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert warned() == [] and native_usable(torch.ones(1))
    (made,) = (p for p in (fresh / "cache").rglob("*") if p.is_file())
    before = made.stat().st_mtime_ns
    native.library.cache_clear()
    monkeypatch.setattr(subprocess, "run", None)  # not called again
    assert warned() == [] and made.stat().st_mtime_ns == before
    assert [p.name for p in made.parent.iterdir()] == [made.name]


@in_c
@pytest.mark.parametrize("compiler", ["", "env LC_ALL=C cc -g0"])
def test_a_compiler_may_have_options_and_a_wrapper(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    """As `ccache gcc`, and CC set to nothing."""
    monkeypatch.setenv("CC", compiler)
    assert warned() == [] and native_usable(torch.ones(1))


@in_c
def test_a_compiler_that_does_not_speak_utf8(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = fresh / "cc"
    compiler.write_text("#!/bin/sh\nprintf 'erreur \\351trange' >&2\nexit 1\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    (message,) = warned()
    assert message.startswith(WITHOUT + r"erreur \xe9trange")


def cached(folder: Path) -> Path:
    """The library in the cache, compiled into it now."""
    assert warned() == []
    native.library.cache_clear()
    (path,) = (folder / "cache").rglob("*.so")
    return path


@in_c
@pytest.mark.parametrize("damage", ["empty", "zeroed", "undigested", "a link"])
def test_a_damaged_library_is_made_again(fresh: Path, damage: str) -> None:
    path = cached(fresh)
    whole = path.read_bytes()
    path.unlink()  # or the library that this process has loaded would change under it
    if damage == "a link":
        (fresh / "other.so").write_bytes(whole)
        path.symlink_to(fresh / "other.so")
    else:
        contents = {"empty": b"", "zeroed": bytes(len(whole)), "undigested": whole[:-32]}
        path.write_bytes(contents[damage])

    assert warned() == [] and native_usable(torch.ones(1))
    assert not path.is_symlink() and path.read_bytes()[-32:] == hashlib.sha256(whole[:-32]).digest()
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@in_c
def test_the_digest_is_that_of_every_byte(fresh: Path) -> None:
    path = cached(fresh)
    whole = path.read_bytes()
    assert native._is_sound(path)
    for position in (0, 5000, len(whole) - 33, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        (fresh / "flipped.so").write_bytes(flipped)
        assert not native._is_sound(fresh / "flipped.so")


@in_c
@pytest.mark.parametrize("umask", [0o002, 0o077])
def test_only_its_owner_can_write_a_library_whatever_the_umask(fresh: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        path = cached(fresh)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~umask
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755 & ~umask


@in_c
def test_a_library_that_others_could_write_is_made_again(fresh: Path) -> None:
    path = cached(fresh)
    path.chmod(0o666)
    made = path.stat().st_ino
    assert warned() == [] and path.stat().st_ino != made
    assert not path.stat().st_mode & 0o022


@in_c
def test_a_cache_of_another_user_is_left_alone(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cached(fresh)
    path.unlink()  # or the library that this process has loaded would change under it
    path.write_bytes(b"planted")
    if os.getuid() == 0:
        os.chown(path.parent, 12345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert warned() == [] and native_usable(torch.ones(1))
    assert path.read_bytes() == b"planted"


@in_c
def test_a_cache_that_cannot_be_made(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "file").touch()
    monkeypatch.setenv(
        "XDG_CACHE_HOME", str(fresh / "file")
    )  # a folder cannot be made in it, not even by root
    assert warned() == [] and native_usable(torch.ones(1))


@in_c
def test_a_cache_that_cannot_be_written(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access = os.access  # root may write anywhere, whatever chmod says
    monkeypatch.setattr(
        os, "access", lambda path, mode, **rest: not mode & os.W_OK and access(path, mode, **rest)
    )
    assert warned() == [] and native_usable(torch.ones(1))
    assert not list((fresh / "cache").rglob("*.so")) and len(list(fresh.rglob("*.so"))) == 1


@in_c
def test_no_home_folder(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as pathlib says it

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    assert warned() == [] and native_usable(torch.ones(1))


SCRIPT = """
import sys, warnings, torch
warnings.simplefilter("error")
from cplxnet.nn import kl
from cplxnet.nn.fast import native
from cplxnet.nn.fast.dispatch import native_usable
x = torch.ones(10000, 2)
value = kl.penalty_sum(x, torch.zeros(10000), kl.COMPLEX_ARD)
print(native_usable(x), native.library.cache_info().currsize, value.item())
"""


def started(**environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_environment_switches_them_off(tmp_path: Path) -> None:
    out, error = started(CPLXNET_NATIVE="0", XDG_CACHE_HOME=str(tmp_path)).communicate(timeout=120)
    off, tried, value = out.split()
    assert (off, tried, error) == ("False", "0", "") and not list(tmp_path.iterdir())
    assert float(value) == pytest.approx(10000 * math.log(3), rel=1e-6)


@in_c
def test_processes_that_compile_at_once_do_not_clash(tmp_path: Path) -> None:
    both = [started(XDG_CACHE_HOME=str(tmp_path)) for _ in range(2)]
    for process in both:
        out, error = process.communicate(timeout=120)
        on, _, value = out.split()
        assert (on, error) == ("True", "") and float(value) == pytest.approx(
            10000 * math.log(3), rel=1e-6
        )
    assert len(list((tmp_path / "cplxnet").iterdir())) == 1


def summed(
    weight: Tensor, log_sigma2: Tensor, term: Term, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """`scale` times the KL sum, and its two gradients."""
    weight, log_sigma2 = weight.detach().requires_grad_(), log_sigma2.detach().requires_grad_()
    value = scale * penalty_sum(weight, log_sigma2, term)
    return value.detach(), *torch.autograd.grad(value, (weight, log_sigma2))


@in_c
def test_torchs_number_of_threads_reaches_the_c_functions() -> None:
    library: ctypes.CDLL = native.library()
    for n in (1, 2):
        with threads(n):  # both run on one OpenMP library, or there would be two pools of threads
            assert library.omp_get_max_threads() == n


@in_c
def test_no_result_depends_on_the_number_of_threads() -> None:
    n = 40 * 4096 + 5
    weight, spread, mean = torch.randn(n, 2), torch.randn(n), torch.randn(n // 8, 8, 2)
    upstream, variance = torch.randn_like(mean), torch.rand(n // 8, 8)

    def everything() -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        layer, inputs = cplx.CplxBatchNorm1d(8), torch.view_as_complex(mean).requires_grad_()
        means, spreads = mean.clone().requires_grad_(), variance.clone().requires_grad_()
        noisy, _ = PairNoise.apply(means, spreads)
        normed = torch.view_as_real(layer(inputs))
        noise = torch.autograd.grad(noisy, (means, spreads), upstream)
        norm = torch.autograd.grad(normed, (inputs, *layer.parameters()), upstream)
        kls = (
            v
            for term in (TERMS["complex-vd"], TERMS["complex-ard"])
            for v in summed(weight, spread, term)
        )
        kls_real = (
            v
            for term in (TERMS["real-vd"], TERMS["real-ard"])
            for v in summed(weight[:, 0] + 0, spread, term)
        )
        return noisy.detach(), normed.detach(), *noise, *norm, *kls, *kls_real, *layer.buffers()

    with threads(1):
        one = everything()
    with threads(2):
        two = everything()
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@in_c
@pytest.mark.parametrize("name", ["affine_pairs", "pair_sums", "affine_two"])
def test_a_tail_of_batch_norm_that_c_does_not_know_is_an_error(name: str) -> None:
    tensors = {"affine_pairs": 4, "pair_sums": 7, "affine_two": 8}[name]
    sizes = (1, 1, 1, 1) if name == "pair_sums" else (1, 1, 1)
    with pytest.raises(RuntimeError, match=f"the C function {name} knows no such case"):
        native.call(name, 3, *sizes, *[torch.zeros(8)] * tensors)
