"""The return head: a linear map of the trunk's last hidden state to expected cross-sectional ranks.

It is trained together with the tokens' language and lies beside the predictor's weights, as head.safetensors and
head.json.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from kronos.head import HEAD_WEIGHTS, HeadInfo, ReturnHead
from kronos.model import Kronos


class RankHead(nn.Module):
    """Hidden states to one expected rank for each horizon; it starts from zero, which ranks nothing."""

    def __init__(self, info: HeadInfo) -> None:
        super().__init__()
        self.info = info
        self.rank = nn.Linear(info.d_model, len(info.horizons))
        nn.init.zeros_(self.rank.weight)
        nn.init.zeros_(self.rank.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., d_model) -> (..., horizons)."""
        ranks: Tensor = self.rank(hidden)
        return ranks

    def loss(self, hidden: Tensor, labels: Tensor, count: Tensor | None = None) -> Tensor:
        """Mean squared error of (B, H, d_model) hidden states over the labels (B, H, horizons) that are not NaN.

        Args:
            hidden: of the positions that have labels.
            labels: NaN where there is none.
            count: of the labels to divide by, where these are a part of a batch; their own number when omitted.
        """
        known = labels.isfinite()
        errors = (self(hidden).float() - labels.nan_to_num()).square() * known
        return errors.sum() / (known.sum() if count is None else count).clamp(min=1)

    def load(self, folder: Path) -> None:
        """Take the weights that lie beside a predictor, if they are of this width and these horizons."""
        file = folder / HEAD_WEIGHTS
        if not file.is_file():
            return
        weights = load_file(file)
        if {name: weight.shape for name, weight in weights.items()} == _shapes(self):
            self.load_state_dict(weights)


class HeadedKronos(nn.Module):
    """A predictor and its head, which are averaged and saved together."""

    def __init__(self, network: Kronos, head: RankHead) -> None:
        super().__init__()
        self.network, self.head = network, head

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the predictor's files, head.safetensors and head.json."""
        folder = self.network.save_pretrained(folder)
        weight, bias = (x.detach().cpu().numpy() for x in (self.head.rank.weight, self.head.rank.bias))
        return ReturnHead(self.head.info, weight, bias).save(folder)


def _shapes(head: nn.Module) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in head.state_dict().items()}
