"""A decision network for inference alone: the same choices in a tenth of the time.

Standardisation, penalty, biases and the previous decision are folded into one table per site when
it is made, so that a decision is five calls: encoder, ReLU, recurrent cell, decoder, argmax.

Dimensions: B images, F features, D encoder width, H recurrent width, G groups, P values of the
previous decision.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from runtime_pruning.agents.decision_network import DecisionNetwork, log_penalty


class _Site(NamedTuple):
    """What one decision multiplies and adds."""

    encode_FD: Tensor
    table_PD: Tensor
    decode_HG: Tensor
    bias_G: Tensor


class DeployedDecisionPolicy:
    """Chooses as `DecisionPolicy` does.

    Args:
        network: it is copied.
        penalty: what the network is told that a unit of cost is worth.
        name: for reports.
    """

    @torch.no_grad()
    def __init__(self, network: DecisionNetwork, penalty: float, name: str) -> None:
        config = network.config
        self.name = name
        self.macs_per_image = network.macs_per_image
        self.hidden = config.hidden
        self.lstm = config.cell == "lstm"
        self.cell = tuple(weight.detach().clone() for weight in network.cell.all_weights[0])
        told = log_penalty(torch.tensor(penalty)).to(network.encode_LFD)
        self.sites = []
        for site, width in enumerate(config.feature_widths):
            scale_F1 = network.feature_scale_LF[site, :width, None]
            encode_FD = network.encode_LFD[site, :width] * scale_F1
            shift_D = network.feature_mean_LF[site, :width] @ encode_FD
            same_D = network.encode_bias_LD[site] + told * network.encode_penalty_LD[site] - shift_D
            # Of a duelling network, the state's worth is the same for all actions.
            decode_HG = network.decode_LHG[site, :, : config.groups].contiguous()
            bias_G = network.decode_bias_LG[site, : config.groups].clone()
            table_PD = network.encode_previous_LPD[site] + same_D
            self.sites.append(_Site(encode_FD, table_PD, decode_HG, bias_G))

    def start(self, batch: int) -> "DeployedDecisionChooser":
        """Return what decides for the next ``batch`` images."""
        return DeployedDecisionChooser(self, batch)


class DeployedDecisionChooser:
    """Decides for one batch of images, sites in order."""

    def __init__(self, policy: DeployedDecisionPolicy, batch: int) -> None:
        self._policy = policy
        self._hidden_BH = policy.cell[0].new_zeros(batch, policy.hidden)
        self._cell_BH = self._hidden_BH
        device = self._hidden_BH.device
        self._previous_B = torch.zeros(batch, dtype=torch.int64, device=device)

    @torch.inference_mode()
    def choose(self, site: int, features_BF: Tensor) -> Tensor:
        """Return ``groups_B``, int64 in [1, groups]."""
        encode_FD, table_PD, decode_HG, bias_G = self._policy.sites[site]
        known_BD = table_PD.index_select(0, self._previous_B)
        encoded_BD = known_BD.addmm_(features_BF, encode_FD).relu_()
        if self._policy.lstm:
            self._hidden_BH, self._cell_BH = torch.lstm_cell(
                encoded_BD, (self._hidden_BH, self._cell_BH), *self._policy.cell
            )
        else:
            self._hidden_BH = torch.gru_cell(encoded_BD, self._hidden_BH, *self._policy.cell)
        advantage_BG = torch.addmm(bias_G, self._hidden_BH, decode_HG)
        self._previous_B = advantage_BG.argmax(1).add_(1)
        return self._previous_B
