"""A model whose attention heads begin as a copying circuit.

From a random start a model this small does not find out within hours that answers are copied. So
the first layer's heads begin by looking one and two tokens back and at the words around; the
later layers' heads begin by looking for places whose predecessors match, and all heads copy what
they see. Everything is trained from there. It is a seeded circuit: whoever says that the model
learned to read should say so, too.

Source: Trockman and Kolter, "Mimetic initialization of self-attention layers", 2023, for the idea
of starting at the shape that trained heads have; Olsson et al., "In-context learning and induction
heads", 2022, for the circuit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Phi3Config, Phi3ForCausalLM

__all__ = ["build_model", "seed_copying_circuit"]

_EMBEDDING_SCALE = 0.06
_CONSTANT = 0.24  # first coordinate of every embedding: what positions are read from
_OUTPUT_SCALE = 0.1
_WINDOW_OUTPUT_SCALE = 0.3
_MATCH_GAIN = 2.5
_CONTENT_GAIN = 0.9
_NOISE = 0.02
_OUTPUT_NOISE = 0.002  # ten times as much drowned the circuit
_FURTHEST = 1000  # tokens over which a slow rotary pair barely turns
_AWAY_FROM_ITSELF = 0.75


def build_model(
    *, vocab_size: int, hidden_size: int, layers: int, intermediate_size: int, seed: int
) -> Phi3ForCausalLM:
    """Build the model that training starts from.

    Args:
        vocab_size: Size of the vocabulary.
        hidden_size: Width; a multiple of 32, which is the size of a head.
        layers: Number of layers.
        intermediate_size: Width of the feed-forward layers.
        seed: Seed of the initial weights.
    """
    config = Phi3Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 32,
        intermediate_size=intermediate_size,
        max_position_embeddings=2048,
        original_max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 1.0},
        sliding_window=None,
        tie_word_embeddings=True,
        bos_token_id=1,
        pad_token_id=2,
        eos_token_id=6,
    )
    torch.manual_seed(seed)
    model = Phi3ForCausalLM(config)
    seed_copying_circuit(model, seed=seed)
    return model


@torch.no_grad()
def seed_copying_circuit(model: Phi3ForCausalLM, *, seed: int) -> None:
    """Set attention weights, embeddings and scales to the copying circuit plus a little noise.

    Args:
        model: A model with at least four heads of at least 16 dimensions.
        seed: Seed.
    """
    config = model.config
    circuit = _Circuit.draw(
        width=config.hidden_size,
        heads=config.num_attention_heads,
        theta=config.rope_parameters["rope_theta"],
        seed=seed,
    )
    embedding = model.model.embed_tokens.weight
    embedding.copy_(circuit.noise(embedding.shape, _EMBEDDING_SCALE))
    embedding[:, 0] = _CONSTANT
    model.model.norm.weight.fill_(0.3)
    for number, layer in enumerate(model.model.layers):
        queries, keys, values, outputs = circuit.first() if number == 0 else circuit.later()
        qkv = torch.cat([part.flatten(0, 1) for part in (queries, keys, values)])
        layer.self_attn.qkv_proj.weight.copy_(qkv + circuit.noise(qkv.shape, _NOISE))
        output = outputs.permute(1, 0, 2).flatten(1)
        output_noise = circuit.noise(output.shape, _OUTPUT_NOISE)
        layer.self_attn.o_proj.weight.copy_(output + output_noise)
        layer.mlp.down_proj.weight.mul_(0.15)


@dataclass
class _Circuit:
    """Directions of the residual stream that the heads share.

    Heads have queries, keys and values of ``(heads, head_dim, width)`` and outputs of
    ``(heads, width, head_dim)``.
    """

    width: int
    heads: int
    size: int
    frequencies: list[float]
    token: Tensor  # what a token is
    previous: tuple[Tensor, Tensor]  # where the tokens one and two places back are noted
    window_token: Tensor
    windows: tuple[Tensor, Tensor]  # where the words of a short and a long window are noted
    generator: torch.Generator

    @classmethod
    def draw(cls, *, width: int, heads: int, theta: float, seed: int) -> _Circuit:
        size = width // heads
        generator = torch.Generator().manual_seed(seed)
        directions = _orthogonal_rows(5 * size, width, generator)
        token, one, two, short, long = torch.split(directions, size)
        return cls(
            width=width,
            heads=heads,
            size=size,
            frequencies=[theta ** (-2 * i / size) for i in range(size // 2)],
            token=token,
            previous=(one, two),
            window_token=_orthogonal_rows(size, width, generator),
            windows=(short, long),
            generator=generator,
        )

    def noise(self, shape: torch.Size, scale: float) -> Tensor:
        return torch.randn(shape, generator=self.generator) * scale

    def first(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heads that note the tokens one and two places back, and the words around."""
        queries, keys, values, outputs = self._copying()
        for head, (distance, direction) in enumerate(zip((1, 2), self.previous, strict=True)):
            queries[head], keys[head] = self._at_distance(
                distance, ((0, 0.75), (1, 0.75), (2, 0.35))
            )
            values[head] = self.token
            outputs[head] = _OUTPUT_SCALE * direction.T
        windows = zip((4, 8), (((2, 0.3), (3, 0.4)), ((3, 0.3), (4, 0.6))), self.windows)  # noqa: B905
        for head, (distance, pairs, direction) in enumerate(windows, start=2):
            queries[head], keys[head] = self._at_distance(distance, pairs)
            values[head] = self.window_token
            outputs[head] = _WINDOW_OUTPUT_SCALE * direction.T
        return queries, keys, values, outputs

    def later(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heads that look where the same token came before, or the same words stand around."""
        queries, keys, values, outputs = self._copying()
        for head, direction in enumerate(self.previous):
            queries[head] = self._content(self.token, _MATCH_GAIN)
            keys[head] = self._content(direction, _MATCH_GAIN)
        for head, direction in enumerate(self.windows, start=2):
            queries[head] = self._content(direction, _MATCH_GAIN)
            keys[head] = self._content(direction, _MATCH_GAIN)
            away_q, away_k = self._at_distance(0, ((4, -_AWAY_FROM_ITSELF),))
            queries[head] += away_q
            keys[head] += away_k
        return queries, keys, values, outputs

    def _copying(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heads that look for like content and copy all of it."""
        shape = (self.heads, self.size, self.width)
        rows = _orthogonal_rows(self.width, self.width, self.generator)
        values = rows.reshape(shape).clone()
        outputs = (_OUTPUT_SCALE * values).transpose(1, 2).clone()
        queries = torch.zeros(shape)
        for head in range(self.heads):
            directions = _orthogonal_rows(self.size, self.width, self.generator)
            queries[head] = self._content(directions, _CONTENT_GAIN)
        return queries, queries.clone(), values, outputs

    def _content(self, directions: Tensor, scale: float) -> Tensor:
        """Read directions in the rotary pairs that turn too slowly to tell positions apart."""
        slow = next(i for i, f in enumerate(self.frequencies) if f * _FURTHEST < 2 * math.pi)
        half = self.size // 2
        places = [*range(slow, half), *range(slow + half, self.size)]
        projection = torch.zeros(self.size, self.width)
        projection[places] = scale * directions[: len(places)]
        return projection

    def _at_distance(
        self, distance: int, pairs: tuple[tuple[int, float], ...]
    ) -> tuple[Tensor, Tensor]:
        """Query and key whose product peaks (or dips) at a distance, through fast rotary pairs."""
        query = torch.zeros(self.size, self.width)
        key = torch.zeros(self.size, self.width)
        half = self.size // 2
        for pair, weight in pairs:
            gain = 2 * math.sqrt(abs(weight))
            angle = self.frequencies[pair] * distance
            query[pair, 0] += gain
            key[pair, 0] += math.copysign(gain, weight) * math.cos(angle)
            key[pair + half, 0] += math.copysign(gain, weight) * math.sin(angle)
        return query, key


def _orthogonal_rows(count: int, width: int, generator: torch.Generator) -> Tensor:
    """Orthogonal directions that leave the constant first coordinate alone."""
    square, _ = torch.linalg.qr(torch.randn(width - 1, width - 1, generator=generator))
    rows = torch.zeros(count, width)
    kept = min(count, width - 1)
    rows[:kept, 1:] = square[:kept]
    return rows
