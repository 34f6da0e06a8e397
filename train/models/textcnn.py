"""Kim's convolutional network for sentences (2014, doi 10.3115/v1/D14-1181): max over windows of 3, 4, 5.

N texts, L tokens, E embedding, F filters of each width, K labels.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn import functional as F


class TextCNNOptions(BaseModel):
    """Kim's own sizes, but for the embedding, which he took ready-made with 300."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embedding: int = Field(default=128, ge=1)
    filters: int = Field(default=100, ge=1)  # of each width
    widths: tuple[Annotated[int, Field(ge=1, le=50)], ...] = Field(default=(3, 4, 5), min_length=1)  # tokens
    dropout: float = Field(default=0.5, ge=0, lt=1)  # before the last layer


class TextCNN(nn.Module):
    """Ids and mask int64 [N, L] -> logits float32 [N, K].

    What was filled up is zero before the convolutions and again before the maximum, so it cannot change an answer.
    """

    def __init__(self, tokens: int, classes: int, options: TextCNNOptions) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, options.embedding)
        nn.init.uniform_(self.embedding.weight, -0.25, 0.25)  # Kim's, for words that nobody has trained
        self.convolutions = nn.ModuleList(nn.Conv1d(options.embedding, options.filters, w) for w in options.widths)
        self.dropout = nn.Dropout(options.dropout)
        self.head = nn.Linear(options.filters * len(options.widths), classes)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        real = mask.to(torch.float32).unsqueeze(1)  # [N, 1, L]
        tokens = self.embedding(ids).transpose(1, 2) * real  # [N, E, L]
        features = torch.cat([_strongest(tokens, real, layer) for layer in self.convolutions], dim=1)
        logits: torch.Tensor = self.head(self.dropout(features))
        return logits


def _strongest(tokens: torch.Tensor, real: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    """The strongest answer of each filter over the windows centred on real tokens: [N, F], 0 where there is none."""
    assert isinstance(layer, nn.Conv1d)
    width = layer.kernel_size[0]
    windows = F.relu(layer(F.pad(tokens, ((width - 1) // 2, width // 2))))  # [N, F, L]
    return (windows * real).amax(dim=2)
