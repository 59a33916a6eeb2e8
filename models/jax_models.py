"""Small JAX models with RMS norms: flax's two libraries, and norms written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

WIDTH = 16
Function = Callable[[jax.Array], jax.Array]


class HandRMSNorm:
    """As in MaxText and Gemma's JAX code: statistics in float32, scale after the cast or 1 + w."""

    def __init__(self, draw: np.random.Generator, dtype: Any, added: float = 0.0) -> None:
        self.added = added
        self.weight = jnp.asarray(draw.uniform(0.5, 1.5, WIDTH) - added, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """X * rsqrt(mean(x^2) + eps), cast, times weight (+ 1)."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        mean_square = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
        normed = wide * jax.lax.rsqrt(mean_square + 1e-6)
        if self.added:
            scale = self.weight.astype(wide.dtype) + self.added
            return (normed * scale).astype(x.dtype)
        return normed.astype(x.dtype) * self.weight


class RootRMSNorm(HandRMSNorm):
    """Over the root of the mean of the squares, everything in the type of x."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """X / sqrt(mean(x ** 2) + eps) * weight."""
        return self.weight * (x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6))


class UnitLength(HandRMSNorm):
    """The unit vector: no mean, hence no RMS norm."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """X / |x| * weight."""
        return x / jnp.linalg.norm(x, axis=-1, keepdims=True) * self.weight


class NnxBlock(nnx.Module):
    """Two pre-norm layers of flax.nnx with residuals, and a last norm."""

    def __init__(self, norm: type[nnx.Module], rngs: nnx.Rngs, dtype: Any) -> None:
        kind = {"rngs": rngs, "dtype": dtype, "param_dtype": dtype}
        self.norms = nnx.List([norm(WIDTH, **kind) for _ in range(3)])
        self.layers = nnx.List([nnx.Linear(WIDTH, WIDTH, **kind) for _ in range(2)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """X plus two layers, normed."""
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = x + nnx.silu(layer(norm(x)))
        return self.norms[2](x)


class LinenBlock(linen.Module):
    """The same of flax.linen; the first norm is over these axes."""

    norm: Callable[..., linen.Module]
    dtype: Any
    axes: tuple[int, ...] = (-1,)

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """X plus a layer of its norm, normed."""
        kind = {"dtype": self.dtype, "param_dtype": self.dtype}
        hidden = self.norm(reduction_axes=self.axes, **kind)(x)
        x = x + linen.silu(linen.Dense(WIDTH, **kind)(hidden))
        return self.norm(**kind)(x)


class PlainBlock:
    """Two pre-norm layers with residuals, and a last norm, without a library."""

    def __init__(self, norm: Callable[[], Function], draw: np.random.Generator, dtype: Any) -> None:
        self.norms = [norm() for _ in range(3)]
        size = (2, WIDTH, WIDTH)
        self.layers = jnp.asarray(draw.normal(size=size) / WIDTH**0.5, dtype)

    def __call__(self, x: jax.Array) -> jax.Array:
        """X plus two layers, normed."""
        for norm, layer in zip(self.norms, self.layers, strict=False):
            x = x + jax.nn.silu(norm(x) @ layer)
        return self.norms[2](x)


@dataclass(frozen=True)
class JaxModel:
    """How it is described, and how it is made from a generator and a type."""

    label: str
    make: Callable[[np.random.Generator, Any], Function]


def _nnx(norm: type[nnx.Module]) -> Callable[[np.random.Generator, Any], Function]:
    def make(draw: np.random.Generator, dtype: Any) -> Function:
        block = NnxBlock(norm, nnx.Rngs(0), dtype)
        for child in block.norms:
            child.scale[...] = jnp.asarray(draw.uniform(0.5, 1.5, WIDTH), dtype)
        return block

    return make


def _linen(
    norm: Callable[..., linen.Module], axes: tuple[int, ...] = (-1,)
) -> Callable[[np.random.Generator, Any], Function]:
    def make(draw: np.random.Generator, dtype: Any) -> Function:
        block = LinenBlock(norm, dtype, axes)
        variables = block.init(jax.random.key(0), jnp.zeros((2, 6, WIDTH), dtype))
        for name, parameters in variables["params"].items():
            if "Norm" in name:
                parameters["scale"] = jnp.asarray(draw.uniform(0.5, 1.5, WIDTH), dtype)
        return lambda x: block.apply(variables, x)

    return make


def _plain(
    norm: type[HandRMSNorm], **options: Any
) -> Callable[[np.random.Generator, Any], Function]:
    return lambda draw, dtype: PlainBlock(lambda: norm(draw, dtype, **options), draw, dtype)


MODELS: dict[str, JaxModel] = {
    "nnx-rmsnorm": JaxModel("flax.nnx.RMSNorm", _nnx(nnx.RMSNorm)),
    "linen-rmsnorm": JaxModel("flax.linen.RMSNorm", _linen(linen.RMSNorm)),
    "linen-rmsnorm-axes12": JaxModel(
        "flax.linen.RMSNorm(reduction_axes=(1, 2))", _linen(linen.RMSNorm, (1, 2))
    ),
    "jax-hand": JaxModel("x * lax.rsqrt(mean(square(x)) + eps), by hand", _plain(HandRMSNorm)),
    "jax-hand-plus1": JaxModel(
        "x * lax.rsqrt(mean(square(x)) + eps) * (1 + w), by hand", _plain(HandRMSNorm, added=1.0)
    ),
    "jax-root": JaxModel("x / jnp.sqrt(mean(x ** 2) + eps), by hand", _plain(RootRMSNorm)),
    "nnx-layernorm": JaxModel("flax.nnx.LayerNorm", _nnx(nnx.LayerNorm)),
    "jax-unit": JaxModel("x / jnp.linalg.norm(x), by hand", _plain(UnitLength)),
}

COUNTED: tuple[type, ...] = (nnx.RMSNorm, HandRMSNorm, RootRMSNorm)
"""Classes whose calls are RMS norms (linen's are counted by linen itself)."""
