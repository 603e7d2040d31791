"""The VAE's attention in fp16 while everything around it stays in fp32: ``--option vae-precision=mixed``.

SDXL's VAE overflows in fp16: its convolutions' sums go past 65504. Attention does not, because it works on what its
group norm has just made small. TensorRT-RTX has no fp32 matrix product for Turing (sm75), and there this form builds;
elsewhere it halves what attention's scores take, 0.5 GB instead of 1 GB for a picture of 1024x1024.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wszoo.families.torch_export import require_torch

if TYPE_CHECKING:
    import torch


class HalfAttention:
    """A processor for diffusers' ``Attention`` whose norm and residual are fp32 and whose products are fp16."""

    def __call__(
        self,
        attention: Any,  # noqa: ANN401
        hidden_states: torch.Tensor,
        temb: object = None,  # noqa: ARG002 - diffusers warns of a processor that does not name it
        **_: object,
    ) -> torch.Tensor:
        """Attend over all pixels.

        Args:
            attention: the module that holds the weights.
            hidden_states: fp32 ``(batch, channels, height, width)``.
            temb: a time embedding, which a VAE has not.
            **_: a mask and a context, which it has not either.
        """
        library = require_torch()
        batch, channels, height, width = hidden_states.shape
        norm = attention.group_norm(hidden_states.reshape(batch, channels, height * width))
        rows = norm.transpose(1, 2).to(library.float16)
        split = (batch, height * width, attention.heads, channels // attention.heads)
        query, key, value = (
            project(rows).reshape(split).transpose(1, 2) for project in (attention.to_q, attention.to_k, attention.to_v)
        )
        found = library.nn.functional.scaled_dot_product_attention(query, key, value)
        merged = attention.to_out[0](found.transpose(1, 2).reshape(batch, height * width, channels))
        image: torch.Tensor = merged.to(library.float32).transpose(1, 2).reshape(hidden_states.shape)
        return (image + hidden_states) / attention.rescale_output_factor


def halve_attention(module: Any) -> None:  # noqa: ANN401 - diffusers' AutoencoderKL
    """Put the weights of every attention in fp16, and make it compute so."""
    torch = require_torch()
    for half in (module.encoder, module.decoder):
        for attention in half.mid_block.attentions:
            if attention is None:
                continue
            for layer in (attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]):
                layer.to(torch.float16)
            attention.set_processor(HalfAttention())
