"""Layers of known networks with their plain operators replaced by kernels, as classes that a module changes to.

A module that is fused stays the object that it is, with its parameters, hooks and names: only its class changes, to one
of these with its own as second parent (as torch's FSDP2 does), and back. So checkpoints, optimizers and shared weights
notice nothing. Where somebody listens to a module that would be passed over, the plain way is taken for that call.

B items, L tokens or patches, H width, F width of the feed-forward layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from kernels.bias_gelu import bias_gelu
from kernels.residual_layernorm import residual_layernorm, residual_layernorm_with_sum


class ResidualNorm:
    """BERT's SelfOutput and Output: LayerNorm(input_tensor + dropout(dense(hidden_states))), [B, L, H]."""

    dense: nn.Linear
    dropout: nn.Dropout
    LayerNorm: nn.LayerNorm

    def forward(self, hidden_states: torch.Tensor, input_tensor: torch.Tensor) -> torch.Tensor:
        if _listened_to(self.dropout, self.LayerNorm):
            return _plain(self)(hidden_states, input_tensor)
        return _norm_of_sum(self.dense(hidden_states), input_tensor, self.LayerNorm, _probability(self.dropout))


class BiasGelu:
    """BERT's Intermediate: gelu(dense(hidden_states)), [B, L, H] to [B, L, F]; the product goes without its bias."""

    dense: nn.Linear
    intermediate_act_fn: nn.Module

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if _listened_to(self.dense, self.intermediate_act_fn):
            return _plain(self)(hidden_states)
        return _linear_gelu(self.dense, hidden_states)


class EmbeddingsNorm:
    """BERT's embeddings: of words, [B, L, H], of positions and of segments, [1 or B, L, H]; sum, norm, dropout."""

    LayerNorm: nn.LayerNorm
    word_embeddings: nn.Embedding
    position_embeddings: nn.Embedding
    token_type_embeddings: nn.Embedding
    dropout: nn.Dropout
    position_ids: torch.Tensor

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values_length: int = 0,
    ) -> torch.Tensor:
        if _listened_to(self.LayerNorm) or token_type_ids is None:
            return _plain(self)(input_ids, token_type_ids, position_ids, inputs_embeds, past_key_values_length)
        words = self.word_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = self.position_ids[:, past_key_values_length : past_key_values_length + words.shape[1]]
        others = self.token_type_embeddings(token_type_ids) + self.position_embeddings(position_ids)
        norm = self.LayerNorm
        normal = residual_layernorm(words, others.expand_as(words), norm.weight, norm.bias, norm.eps)
        return self.dropout(normal)


class PreNormLayer:
    """A layer of transformers' ViT: the sum after the attention is made and normalised at once, [B, L, H]."""

    attention: nn.Module
    layernorm_before: nn.LayerNorm
    layernorm_after: nn.LayerNorm
    mlp: nn.Module
    dropout: nn.Dropout

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **given: Any
    ) -> torch.Tensor:
        if _listened_to(self.layernorm_after, self.dropout):
            return _plain(self)(hidden_states, attention_mask, **given)
        attended, _ = self.attention(self.layernorm_before(hidden_states), attention_mask, **given)
        normal, summed = _sum_and_norm(attended, hidden_states, self.layernorm_after, self.dropout)
        return self.dropout(self.mlp(normal)) + summed


class DistilLayer:
    """A layer of DistilBERT: both sums are normalised as they are made; there is no dropout before them, [B, L, H]."""

    attention: nn.Module
    ffn: nn.Module
    sa_layer_norm: nn.LayerNorm
    output_layer_norm: nn.LayerNorm

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **given: Any
    ) -> torch.Tensor:
        if _listened_to(self.sa_layer_norm, self.output_layer_norm):
            return _plain(self)(hidden_states, attention_mask, **given)
        attended, _ = self.attention(hidden_states, attention_mask=attention_mask, **given)
        normal = _norm_of_sum(attended, hidden_states, self.sa_layer_norm)
        return _norm_of_sum(self.ffn(normal), normal, self.output_layer_norm)


class DistilGelu:
    """The feed-forward half of DistilBERT: dropout(lin2(gelu(lin1(input)))), [B, L, H]."""

    lin1: nn.Linear
    lin2: nn.Linear
    activation: nn.Module
    dropout: nn.Dropout

    def ff_chunk(self, input: torch.Tensor) -> torch.Tensor:  # what its forward calls, maybe piece by piece
        if _listened_to(self.lin1, self.activation):
            chunk: torch.Tensor = type(self).plain.ff_chunk(self, input)  # type: ignore[attr-defined]
            return chunk
        return self.dropout(self.lin2(_linear_gelu(self.lin1, input)))


class EncoderBlock:
    """A layer of torchvision's ViT, likewise."""

    ln_1: nn.LayerNorm
    ln_2: nn.LayerNorm
    self_attention: nn.MultiheadAttention
    dropout: nn.Dropout
    mlp: nn.Module

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # its name in torchvision
        if _listened_to(self.ln_2, self.dropout):
            return _plain(self)(input)
        x = self.ln_1(input)
        attended, _ = self.self_attention(x, x, x, need_weights=False)
        normal, summed = _sum_and_norm(attended, input, self.ln_2, self.dropout)
        return self.mlp(normal) + summed


class MlpGelu:
    """The feed-forward half of transformers' ViT: fc2(gelu(fc1(x))), [B, L, H]."""

    fc1: nn.Linear
    fc2: nn.Linear
    activation_fn: nn.Module

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if _listened_to(self.fc1, self.activation_fn):
            return _plain(self)(hidden_states)
        return self.fc2(_linear_gelu(self.fc1, hidden_states))


class SequentialGelu:
    """An nn.Sequential in which a GELU follows a Linear: in torchvision's ViT, Swin and ConvNeXt."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        assert isinstance(self, nn.Sequential)
        modules, at = list(self), 0
        while at < len(modules):
            linear, after = modules[at], modules[at + 1] if at + 1 < len(modules) else None
            if after is not None and is_linear_gelu(linear, after) and not _listened_to(linear, after):
                input, at = _linear_gelu(linear, input), at + 2
            else:
                input, at = linear(input), at + 1
        return input


def is_linear_gelu(linear: nn.Module, after: nn.Module) -> bool:
    """Whether a Linear with a bias is followed by GELU as the kernel computes it, with erf."""
    return type(linear) is nn.Linear and linear.bias is not None and is_exact_gelu(after)


def is_exact_gelu(module: nn.Module) -> bool:
    """Whether `module` is x Phi(x), and not one of its approximations."""
    if type(module) is nn.GELU:
        return module.approximate == "none"
    return type(module).__name__ == "GELUActivation" and getattr(module, "act", None) is F.gelu  # transformers'


def _linear_gelu(linear: nn.Module, x: torch.Tensor) -> torch.Tensor:
    assert isinstance(linear, nn.Linear)
    product = F.linear(x, linear.weight)
    return bias_gelu(product, linear.bias.to(product.dtype))  # under autocast the product is in half precision


def _norm_of_sum(x: torch.Tensor, residual: torch.Tensor, norm: nn.LayerNorm, p: float = 0.0) -> torch.Tensor:
    """LayerNorm(residual + dropout(x)) with probability `p`."""
    dtype = _working_dtype(x, residual)
    return residual_layernorm(x.to(dtype), residual.to(dtype), norm.weight, norm.bias, norm.eps, p)


def _sum_and_norm(
    x: torch.Tensor, residual: torch.Tensor, norm: nn.LayerNorm, dropout: nn.Dropout
) -> tuple[torch.Tensor, torch.Tensor]:
    """LayerNorm(residual + dropout(x)), and the sum, which goes through all layers and so keeps its precision."""
    dtype = torch.promote_types(x.dtype, residual.dtype)
    return residual_layernorm_with_sum(
        x.to(dtype), residual.to(dtype), norm.weight, norm.bias, norm.eps, _probability(dropout)
    )


def _working_dtype(x: torch.Tensor, residual: torch.Tensor) -> torch.dtype:
    """Under autocast what its products have: statistics are in fp32 all the same, and half as much is moved."""
    return x.dtype if torch.is_autocast_enabled(x.device.type) else torch.promote_types(x.dtype, residual.dtype)


def _probability(dropout: nn.Dropout) -> float:
    """Of being dropped now; the kernel draws its seed from torch's generator, so that a seed gives the same again."""
    return dropout.p if dropout.training else 0.0


def _listened_to(*modules: nn.Module) -> bool:
    """Whether a hook waits for one of these, which the kernel would pass over."""
    return any(
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
        for module in modules
    )


def _plain(module: Any) -> Callable[..., torch.Tensor]:
    """The forward of the class that `module` was of before it was fused."""
    forward: Callable[..., torch.Tensor] = type(module).plain.forward.__get__(module)
    return forward
