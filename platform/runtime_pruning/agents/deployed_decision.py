"""A decision network for inference alone: the same choices in a fraction of the time.

Standardisation, penalty, biases and the previous decision are folded into one table per site when
it is made. On a CPU a decision is then one compiled call (`executor/native`), elsewhere a few. The
decision network may stay on the CPU while what it decides for is on another device.

Dimensions: B images, F features, D encoder width, H recurrent width, X all gates, G groups, P
values of the previous decision.
"""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from runtime_pruning.agents.decision_network import DecisionNetwork, log_penalty
from runtime_pruning.executor.native import abi, library, memory

FLOAT, LONG = ctypes.sizeof(ctypes.c_float), ctypes.sizeof(ctypes.c_int64)


class Weights(NamedTuple):
    """What a decision multiplies and adds, as ``Decision`` in the compiled source has it."""

    encode_FD: Tensor
    table_PD: Tensor
    input_DX: Tensor
    input_bias_X: Tensor
    carry_HX: Tensor
    carry_bias_X: Tensor
    decode_HG: Tensor
    decode_bias_G: Tensor

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a decision: each matrix meets one vector."""
        matrices = (self.encode_FD, self.input_DX, self.carry_HX, self.decode_HG)
        return sum(matrix.numel() for matrix in matrices)


class DeployedDecisionPolicy:
    """Chooses as `DecisionPolicy` does.

    Args:
        network: it is copied.
        penalty: what the network is told that a unit of cost is worth.
        name: for reports.

    Attributes:
        macs_per_image: of all decisions, counted from the matrices that they multiply. Less than
            the network's own: the penalty is folded away, and the state's worth is not computed.
        addresses: of each site's `abi.Decision`; they live as long as this.
        table: address of a table of them.
        decide: the compiled call, where it can decide; else None.
    """

    @torch.no_grad()
    def __init__(self, network: DecisionNetwork, penalty: float, name: str) -> None:
        self.name = name
        self.config = network.config
        in_XD, carry_XH, in_bias_X, carry_bias_X = network.cell.all_weights[0]
        cell = (in_XD.T, in_bias_X, carry_XH.T, carry_bias_X)
        in_DX, bias_X, carry_HX, late_X = (
            part.detach().clone(memory_format=torch.contiguous_format) for part in cell
        )
        shared = (in_DX, bias_X, carry_HX, late_X)
        self.sites = [
            Weights(*_encoder(network, site, penalty), *shared, *_decoder(network, site))
            for site in range(self.config.num_sites)
        ]
        decided = self.sites[self.config.decides_from :]
        self.macs_per_image = sum(weights.macs for weights in decided)
        self._calls = [_call(weights, lstm=self.config.cell == "lstm") for weights in self.sites]
        self.addresses = [ctypes.addressof(call) for call in self._calls]
        self._table = (ctypes.c_void_p * len(self.addresses))(*self.addresses)
        self.table = ctypes.addressof(self._table)
        like = self.sites[0].encode_FD
        ours = like.device.type == "cpu" and like.dtype == torch.float32
        self.decide = library.decide() if ours else None

    def start(self, batch: int) -> "CompiledChooser | TorchChooser":
        """Return what decides for the next ``batch`` images."""
        return TorchChooser(self, batch) if self.decide is None else CompiledChooser(self, batch)


def _call(weights: Weights, *, lstm: bool) -> abi.Decision:
    """Return a decision for the compiled library; its weights must outlive it."""
    features, code = weights.encode_FD.shape
    hidden, values = weights.decode_HG.shape
    pointers = [tensor.data_ptr() for tensor in weights]
    return abi.Decision(*pointers, features, code, hidden, values, lstm)


def _encoder(network: DecisionNetwork, site: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Return the weights of pooled features, and what is added to them by previous decision."""
    width = network.config.feature_widths[site]
    encode_FD = network.encode_LFD[site, :width] * network.feature_scale_LF[site, :width, None]
    told = log_penalty(torch.tensor(penalty)).to(encode_FD)
    same_D = network.encode_bias_LD[site] + told * network.encode_penalty_LD[site]
    same_D = same_D - network.feature_mean_LF[site, :width] @ encode_FD
    return encode_FD, network.encode_previous_LPD[site] + same_D


def _decoder(network: DecisionNetwork, site: int) -> tuple[Tensor, Tensor]:
    """Return weights and bias of the advantages; the state's worth is the same for all actions."""
    groups = network.config.groups
    decode_HG = network.decode_LHG[site, :, :groups].contiguous()
    return decode_HG, network.decode_bias_LG[site, :groups].clone()


class CompiledChooser:
    """Decides for one batch of images, sites in order, by the compiled call.

    Attributes:
        settled: for how many of the first sites the choice is one group.
        compiled: what decides without being asked; it must outlive its use.
    """

    def __init__(self, policy: DeployedDecisionPolicy, batch: int) -> None:
        self._policy, self._batch = policy, batch
        self.settled = policy.config.decides_from
        # The last decisions, hidden states and cells. No tensors: they take microseconds to make.
        numbers, state = batch * LONG, batch * policy.config.hidden * FLOAT
        self._room = ctypes.create_string_buffer(numbers + 2 * state)
        first = ctypes.addressof(self._room)
        self._state = (first, first + numbers, first + numbers + state)
        if self.settled:
            self._previous[:] = [1] * batch
        self.compiled = abi.Decisions(policy.table, self.settled, self._state)

    @property
    def _previous(self) -> abi.Counts:
        """The last decision of each image."""
        return (ctypes.c_int64 * self._batch).from_buffer(self._room)

    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        """Return ``groups_B``, int64 in [1, groups]."""
        if site >= self.settled:
            features_BF = features_BF.cpu().contiguous()
            features = features_BF.data_ptr()
            assert self._policy.decide is not None
            address = self._policy.addresses[site]
            self._policy.decide(address, features, self._batch, *self._state)
        return torch.tensor(self._previous)

    def choose_from(self, site: int, features_1CHW: Tensor) -> int | None:
        """Return the groups of one image from the feature map itself; None where it cannot."""
        if site < self.settled:
            return 1
        own = library.functions(features_1CHW.dtype) if features_1CHW.is_cpu else None
        if own is None:
            return None
        features_1CHW = memory.channels_last(features_1CHW)
        _, channels, height, width = features_1CHW.shape
        features = features_1CHW.data_ptr()
        address = self._policy.addresses[site]
        own.decide(address, features, channels, height * width, *self._state)
        return int(self._previous[0])


class TorchChooser:
    """Decides for one batch of images, sites in order, wherever the network is."""

    def __init__(self, policy: DeployedDecisionPolicy, batch: int) -> None:
        self._policy = policy
        self._hidden_BH = policy.sites[0].decode_HG.new_zeros(batch, policy.config.hidden)
        self._cell_BH = self._hidden_BH
        device = self._hidden_BH.device
        self.settled = policy.config.decides_from
        before = min(self.settled, 1)
        self._previous_B = torch.full((batch,), before, dtype=torch.int64, device=device)

    @torch.inference_mode()
    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        """Return ``groups_B``, int64 in [1, groups]."""
        if site < self.settled:
            return self._previous_B
        own = self._policy.sites[site]
        features_BF = features_BF.to(own.encode_FD.device)
        known_BD = own.table_PD.index_select(0, self._previous_B)
        encoded_BD = torch.addmm(known_BD, features_BF, own.encode_FD).relu_()
        cell = (own.input_DX.T, own.carry_HX.T, own.input_bias_X, own.carry_bias_X)
        if self._policy.config.cell == "lstm":
            state = (self._hidden_BH, self._cell_BH)
            self._hidden_BH, self._cell_BH = torch.lstm_cell(encoded_BD, state, *cell)
        else:
            self._hidden_BH = torch.gru_cell(encoded_BD, self._hidden_BH, *cell)
        advantage_BG = torch.addmm(own.decode_bias_G, self._hidden_BH, own.decode_HG)
        self._previous_B = advantage_BG.argmax(1).add_(1)
        return self._previous_B
