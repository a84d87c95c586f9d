"""What README shows runs as it stands there, and what the pages link to exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [path.relative_to(ROOT) for path in (ROOT / "README.md", *ROOT.glob("*/**/*.md"))]
PAGES = [page for page in PAGES if page.parts[0] in ("README.md", "extra", "legacy", "cplxnet")]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


CHECKS = """
assert logit.shape == (8, 84) and logit.dtype == torch.float32
loss.backward()
assert net[5].log_sigma2.grad.abs().min() > 0
shapes = {key: tuple(mask.shape) for key, mask in masks.items()}
assert shapes == {"0": (16, 1, 6), "5": (84, 16368)}
print("all true")
"""


def test_the_network_of_the_readme_trains() -> None:
    (code,) = [block for block in blocks("python") if "kl_sum" in block]
    ran = subprocess.run(
        [sys.executable, "-c", code + CHECKS], capture_output=True, text=True, timeout=120
    )
    assert ran.stdout == "all true\n", ran.stderr


def test_the_runs_of_the_readme_are_there() -> None:
    (code,) = [block for block in blocks("python") if "auto.run" in block]
    check = "assert len(table) and list(scores['stages']) == ['dense', 'sparsify', 'fine-tune']"
    ran = subprocess.run(
        [sys.executable, "-c", f"{code}\n{check}"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)h#][^)#]*)", (ROOT / page).read_text()):
        assert (ROOT / page.parent / link).exists(), link


def test_every_figure_is_shown_on_a_page() -> None:
    texts = "".join((ROOT / page).read_text() for page in PAGES)
    figures = list((ROOT / "extra" / "figures").iterdir())
    assert figures and all(f"figures/{figure.name})" in texts for figure in figures)


def test_every_file_and_command_that_the_readme_names_exists() -> None:
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)", README, flags=re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text()
    assert {"demo", "test"} <= targets and all(f"\n{target}:" in makefile for target in targets)
    for name in re.findall(r"`([a-z_]+\.ipynb)`", README):
        assert (ROOT / name).exists(), name
