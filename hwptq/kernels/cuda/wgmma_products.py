"""Products by warpgroups: the template of [kernel.*] tables for NVIDIA Hopper."""

from __future__ import annotations

from hwptq.kernels.layer import Layer
from hwptq.kernels.template import Template
from hwptq.targets.templates.wgmma import WgmmaKernel
from hwptq.tir.kernel import Step

from .float_products import product_steps
from .int8_products import int8_product_steps
from .tensor_cores import in_integers, summed_by_step


class Wgmma(Template[WgmmaKernel]):
    """Layers in floats or int8, and products of two activations in floats."""

    table = WgmmaKernel

    def takes(self, layer: Layer) -> bool:
        return summed_by_step(layer.op) or in_integers(layer)

    def steps(self, layer: Layer) -> tuple[Step, ...]:
        tensors = layer.activations, layer.constants, layer.out
        if summed_by_step(layer.op):
            return product_steps(layer.op, *tensors, self.kernel)
        return int8_product_steps(layer.op, *tensors, self.kernel)
