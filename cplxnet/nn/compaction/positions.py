"""Where the weights that are left stand in their tensor, in as few bytes as the pattern allows.

Positions are those of the flattened tensor, rising. Four forms, the smallest of which is taken:

- `all`: nothing is stored, every position is meant;
- `bits`: a bit for every position, 1 = kept, eight to a byte, the lowest bit first;
- `steps8`, `steps16`: a uint8 or uint16 for every kept position, how many dropped ones lie before it; the largest
  number, 255 or 65535, says "that many dropped ones, and no kept one yet" and can be repeated.
"""

import torch
from torch import Tensor

_STEPS = {"steps8": torch.uint8, "steps16": torch.uint16}
FORMS = ("all", "bits", *_STEPS)


def encode(kept: Tensor) -> tuple[str, Tensor]:
    """The form and its bytes or words, for `kept` bool (n,)."""
    if bool(kept.all()):
        return "all", torch.empty(0, dtype=torch.uint8)
    position = kept.nonzero().flatten()
    made = {
        "bits": _bits(kept),
        **{form: _steps(position, dtype) for form, dtype in _STEPS.items()},
    }
    return min(made.items(), key=lambda item: item[1].nbytes)


def decode(form: str, stored: Tensor, n: int) -> Tensor:
    """The positions, int64 rising, in a tensor of `n`. Raises ValueError for an unknown form, or positions beyond n."""
    if form not in FORMS:
        raise ValueError(f"expected positions in one of the forms {', '.join(FORMS)}, got {form!r}")
    if form == "all":
        return torch.arange(n)
    if form == "bits":
        bits = (stored.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
        position = bits.flatten().nonzero().flatten()
    else:
        most = torch.iinfo(_STEPS[form]).max
        words = stored.long()
        after = torch.where(words == most, most, words + 1).cumsum(0)
        position = after[words != most] - 1
    if len(position) and int(position[-1]) >= n:
        raise ValueError(f"expected positions below {n}, got {int(position[-1])}")
    return position


def _bits(kept: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(kept.to(torch.uint8), (0, -len(kept) % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def _steps(position: Tensor, dtype: torch.dtype) -> Tensor:
    most = torch.iinfo(dtype).max
    skipped = torch.diff(position, prepend=position.new_full((1,), -1)) - 1
    waits = skipped // most  # how often the largest number comes before the step itself
    words = torch.full((int(waits.sum()) + len(position),), most, dtype=torch.int64)
    words[(waits + 1).cumsum(0) - 1] = skipped % most
    return words.to(dtype)
