"""The decision network: pooled features of each site in, a value per number of groups out.

Each site has its own encoder and decoder; one recurrent cell is shared and carries what was seen
at earlier sites upward. Runs step by step beside the backbone, or over whole episodes at once.
This file imports torch alone, so that a trained network runs where Ray is not installed.

Source: Lin, Rao, Lu, Zhou, "Runtime Neural Pruning", NeurIPS 2017, section 3.2. Ours: the penalty
and the previous decision are inputs, too, so that one network serves all penalties.
Dimensions: B images, L sites, F features, D encoder width, H recurrent width, G groups, P values
of the previous decision (G and "none yet").
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

Cell = Literal["gru", "lstm"]
GATES = {"gru": 3, "lstm": 4}

# Penalties span decades; below this floor they count as zero.
PENALTY_FLOOR = 1e-4
NEVER = -1e6  # the value of what cannot be chosen
LEAST_DEVIATION = 1e-5  # features that vary less count as constant

State = tuple[Tensor, ...]  # hidden state, and the LSTM's cell state: each (1, B, H)


@dataclass(frozen=True, kw_only=True)
class DecisionConfig:
    """The shape of a decision network.

    Attributes:
        feature_widths: width F of the features before each site.
        groups: values per site.
        encoder: width D of the encoded features.
        hidden: width H of the recurrent state.
        cell: kind of recurrent cell.
        dueling: split values into the state's worth and the advantages of the actions
            (Wang et al., "Dueling network architectures", 2016, eq. 9).
        decides_from: the first site that is decided; those before it run one group.
    """

    feature_widths: tuple[int, ...]
    groups: int
    encoder: int = 64
    hidden: int = 64
    cell: Cell = "gru"
    dueling: bool = False
    decides_from: int = 0

    def __post_init__(self) -> None:
        if not self.feature_widths or min(self.feature_widths) < 1:
            raise ValueError(
                f"`feature_widths` must name widths >= 1, but got {self.feature_widths}."
            )
        if not 0 <= self.decides_from < len(self.feature_widths):
            raise ValueError(
                f"`0 <= decides_from < {len(self.feature_widths)}` must hold, one site at least "
                f"being decided, but got {self.decides_from}."
            )
        for name, least in (("groups", 2), ("encoder", 1), ("hidden", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name} >= {least}` must hold, but got {getattr(self, name)}.")
        if self.cell not in GATES:
            raise ValueError(f"`cell` must be one of {sorted(GATES)}, but got {self.cell!r}.")

    @property
    def num_sites(self) -> int:
        """Number of decisions per image."""
        return len(self.feature_widths)


class Decision(NamedTuple):
    """The values at one site, and the state to hand to the next."""

    q_BG: Tensor
    state: State


class DecisionNetwork(nn.Module):
    """Values of running 1 to G groups, site by site.

    Features are standardised by constants (`standardise`), neutral at first: pooled activations
    vary little around large means. Weights of encoders and decoders lie in banks over the sites,
    padded to the widest features: a whole batch of episodes is then one batched product.
    """

    feature_mean_LF: Tensor
    feature_scale_LF: Tensor

    def __init__(self, config: DecisionConfig) -> None:
        super().__init__()
        self.config = config
        sites, groups = config.num_sites, config.groups
        encoder, hidden, widest = config.encoder, config.hidden, max(config.feature_widths)
        outputs = groups + config.dueling
        self.register_buffer("feature_mean_LF", torch.zeros(sites, widest))
        self.register_buffer("feature_scale_LF", torch.ones(sites, widest))
        self.encode_LFD = nn.Parameter(torch.zeros(sites, widest, encoder))
        self.encode_penalty_LD = nn.Parameter(torch.zeros(sites, encoder))
        self.encode_previous_LPD = nn.Parameter(torch.zeros(sites, groups + 1, encoder))
        self.encode_bias_LD = nn.Parameter(torch.zeros(sites, encoder))
        cells = {"gru": nn.GRU, "lstm": nn.LSTM}
        self.cell = cells[config.cell](encoder, hidden, batch_first=True)
        self.decode_LHG = nn.Parameter(torch.zeros(sites, hidden, outputs))
        self.decode_bias_LG = nn.Parameter(torch.zeros(sites, outputs))
        self._initialise()

    def _initialise(self) -> None:
        """Draw each site's weights as `nn.Linear` would at that site's true width."""
        for site, width in enumerate(self.config.feature_widths):
            fan_in = width + 2  # features, penalty, previous decision
            for weight in (
                self.encode_LFD[site, :width],
                self.encode_penalty_LD[site],
                self.encode_previous_LPD[site],
            ):
                nn.init.uniform_(weight.data, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
            bound = 1 / math.sqrt(self.config.hidden)
            nn.init.uniform_(self.decode_LHG[site].data, -bound, bound)

    @torch.no_grad()
    def standardise(self, features_BLF: Tensor) -> None:
        """Shift and scale features from here on, so that these have mean 0 and deviation 1.

        Features that do not vary are shifted only.

        Args:
            features_BLF: of images under plans like those to come, zero-padded.
        """
        deviation_LF, mean_LF = torch.std_mean(features_BLF, dim=0, correction=0)
        self.feature_mean_LF.copy_(mean_LF)
        varies_LF = deviation_LF > LEAST_DEVIATION
        self.feature_scale_LF.copy_(torch.where(varies_LF, 1 / deviation_LF, 1.0))

    @property
    def macs_per_image(self) -> int:
        """Multiply-accumulates of all decisions on one image.

        Encoders (features and penalty; the previous decision is a table look-up), the gates of
        the recurrent cell, and decoders. Pointwise operations count as none, as in the backbone;
        the standardisation of features can be folded into the encoders.
        """
        config = self.config
        decided = config.feature_widths[config.decides_from :]
        encoders = sum(width + 1 for width in decided) * config.encoder
        cell = GATES[config.cell] * (config.encoder + config.hidden) * config.hidden
        decoder = config.hidden * (config.groups + config.dueling)
        return encoders + len(decided) * (cell + decoder)

    def initial_state(self, batch: int) -> State:
        """Return the state before the first site."""
        zero_1BH = self.decode_LHG.new_zeros(1, batch, self.config.hidden)
        return (zero_1BH,) if self.config.cell == "gru" else (zero_1BH, zero_1BH)

    def step(
        self,
        site: int,
        features_BF: Tensor,
        previous_B: Tensor,
        penalty_B: Tensor,
        state: State,
    ) -> Decision:
        """Return the values at one site where all images stand.

        Args:
            site: index of the site.
            features_BF: at least as wide as the site's features; what is beyond is not read.
            previous_B: groups chosen at the site before, int64; 0 at the first.
            penalty_B: reward lost per unit of cost, at least 0.
            state: from the site before, or `initial_state`.
        """
        if site < self.config.decides_from:
            return Decision(self._undecided(features_BF.new_empty(len(penalty_B))), state)
        width = self.config.feature_widths[site]
        seen_BF = features_BF[:, :width] - self.feature_mean_LF[site, :width]
        seen_BF = seen_BF * self.feature_scale_LF[site, :width]
        encoded_BD = torch.addmm(self.encode_bias_LD[site], seen_BF, self.encode_LFD[site, :width])
        encoded_BD = encoded_BD + log_penalty(penalty_B)[:, None] * self.encode_penalty_LD[site]
        encoded_BD = encoded_BD + self.encode_previous_LPD[site, previous_B]
        hidden_B1H, state = self._recur(encoded_BD.relu()[:, None], state)
        decoded_BG = torch.addmm(self.decode_bias_LG[site], hidden_B1H[:, 0], self.decode_LHG[site])
        return Decision(self._values(decoded_BG), state)

    def forward(self, features_BLF: Tensor, previous_BL: Tensor, penalty_B: Tensor) -> Tensor:
        """Return ``q_BLG`` of whole episodes.

        Args:
            features_BLF: features before each site, zero-padded to the widest site.
            previous_BL: groups chosen at the site before each, int64; 0 at the first.
            penalty_B: reward lost per unit of cost, at least 0.
        """
        first = self.config.decides_from
        seen_BLF = features_BLF[:, first:] - self.feature_mean_LF[first:]
        seen_BLF = seen_BLF * self.feature_scale_LF[first:]
        encoded_BLD = torch.einsum("blf,lfd->bld", seen_BLF, self.encode_LFD[first:])
        same_BLD = log_penalty(penalty_B)[:, None, None] * self.encode_penalty_LD[first:]
        encoded_BLD = encoded_BLD + same_BLD + self.encode_bias_LD[first:]
        site_L = torch.arange(first, self.config.num_sites, device=previous_BL.device)
        encoded_BLD = encoded_BLD + self.encode_previous_LPD[site_L, previous_BL[:, first:]]
        hidden_BLH, _ = self._recur(encoded_BLD.relu(), self.initial_state(len(penalty_B)))
        decoded_BLG = torch.einsum("blh,lhg->blg", hidden_BLH, self.decode_LHG[first:])
        q_BLG = self._values(decoded_BLG + self.decode_bias_LG[first:])
        return torch.cat([self._undecided(q_BLG.new_empty(len(q_BLG), first)), q_BLG], dim=1)

    def _undecided(self, like: Tensor) -> Tensor:
        """Return values, one more dimension than given, that leave no choice but one group."""
        values = like.new_full((*like.shape, self.config.groups), NEVER)
        values[..., 0] = 0
        return values

    def _recur(self, encoded_BTD: Tensor, state: State) -> tuple[Tensor, State]:
        """Run the recurrent cell over T sites."""
        if self.config.cell == "gru":
            hidden_BTH, last_1BH = self.cell(encoded_BTD, state[0])
            return hidden_BTH, (last_1BH,)
        hidden_BTH, pair = self.cell(encoded_BTD, state)
        return hidden_BTH, tuple(pair)

    def _values(self, decoded_G: Tensor) -> Tensor:
        """Combine worth and advantages where the network duels; the last output is the worth."""
        if not self.config.dueling:
            return decoded_G
        advantage_G, worth_1 = decoded_G[..., :-1], decoded_G[..., -1:]
        return worth_1 + advantage_G - advantage_G.mean(-1, keepdim=True)


def log_penalty(penalty_B: Tensor) -> Tensor:
    """Return penalties on a scale from -1 (none) to 1 (one unit of reward per unit of cost)."""
    return torch.log10(penalty_B.clamp(min=PENALTY_FLOOR)) / 2 + 1
