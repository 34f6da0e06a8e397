"""[graph] in a recipe: whether exported graphs are rewritten."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict


class GraphConfig(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    # "measured": each rewrite that is measured faster on this machine stays; "none": graphs stay as they are exported
    rewrites: Literal["measured", "none"] = "measured"
