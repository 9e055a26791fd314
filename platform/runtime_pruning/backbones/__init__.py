"""CNN factories by name: one file per family.

A backbone is a plain ``nn.Module`` that takes images as float32 in [0, 1], shape (B, C, H, W), and
returns logits, shape (B, K). Its first submodule is its own pixel normalisation. It must be
traceable by torch.fx; sites, stages and costs are derived from it elsewhere.
"""

from runtime_pruning.backbones import digits_cnn as _digits_cnn
from runtime_pruning.backbones import mcifarnet as _mcifarnet
from runtime_pruning.backbones import resnet_cifar as _resnet_cifar
from runtime_pruning.backbones import rnp_networks as _rnp_networks
from runtime_pruning.backbones import torchvision_models as _torchvision_models
from runtime_pruning.backbones import vgg_cifar as _vgg_cifar
from runtime_pruning.backbones.catalogue import (
    WEIGHTS_ENV,
    BackboneFactory,
    create,
    get,
    names,
    register,
)
from runtime_pruning.backbones.layers import Normalise, SubsampleShortcut

__all__ = [
    "WEIGHTS_ENV",
    "BackboneFactory",
    "Normalise",
    "SubsampleShortcut",
    "create",
    "get",
    "names",
    "register",
]

# Importing a family registers its members.
_FAMILIES = (
    _digits_cnn,
    _mcifarnet,
    _resnet_cifar,
    _rnp_networks,
    _torchvision_models,
    _vgg_cifar,
)
