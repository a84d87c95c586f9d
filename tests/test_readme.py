"""What README shows runs as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


CHECKS = """
assert logit.shape == (8, 84) and logit.dtype == torch.float32
loss.backward()
assert net[5].log_sigma2.grad.abs().min() > 0
assert {key: tuple(mask.shape) for key, mask in masks.items()} == {"0": (16, 1, 6), "5": (84, 16368)}
print("all true")
"""


def test_the_network_of_the_readme_trains() -> None:
    (code,) = [block for block in blocks("python") if "kl_sum" in block]
    ran = subprocess.run(
        [sys.executable, "-c", code + CHECKS], capture_output=True, text=True, timeout=120
    )
    assert ran.stdout == "all true\n", ran.stderr


def test_every_file_and_command_that_the_readme_names_exists() -> None:
    root = Path(__file__).parent.parent
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE))
    makefile = (root / "Makefile").read_text()
    assert {"demo", "test"} <= targets and all(f"\n{target}:" in makefile for target in targets)
    for name in re.findall(r"`([a-z_]+\.ipynb)`", README) + re.findall(
        r"\]\(([^)h][^)]*)\)", README
    ):
        assert (root / name).exists(), name
