"""The scorecard of a backbone: what pruning finds in it, and each promise kept or broken.

`score` builds a registered backbone, traces it and tries the clauses of the contract one by one; a
clause that fails says why.
"""

from dataclasses import dataclass

from runtime_pruning import backbones
from runtime_pruning.cost.macs import dense_macs
from runtime_pruning.errors import ConfigError, ContractError, TracingError
from runtime_pruning.network import Site, trace
from runtime_pruning.network.graph import NoSite
from runtime_pruning.testing.contract import PROMISES, Clause, try_clauses

_CREATED = "it is a module from images to logits"
_TRACED = "its sites can be found"


@dataclass(frozen=True)
class Scorecard:
    """What is known of a backbone as a prunable network.

    Attributes:
        backbone: its name.
        image_shape: (C, H, W).
        groups: per site.
        align: that was asked for.
        sites: none if it cannot be traced.
        dense_macs: per image; 0 if it cannot be traced.
        clauses: all promises, in the order in which they are tried.
        no_sites: the convolutions that always run all channels, with the reason for each.
    """

    backbone: str
    image_shape: tuple[int, int, int]
    groups: int
    align: int
    sites: tuple[Site, ...]
    dense_macs: int
    clauses: tuple[Clause, ...]
    no_sites: tuple[NoSite, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every promise is kept."""
        return all(clause.passed for clause in self.clauses)

    def __str__(self) -> str:
        head = f"{self.backbone} on images of {self.image_shape}, {self.groups} groups per site"
        lines = [head, *map(str, self.clauses)]
        if self.sites:
            lines += ["", f"dense MACs per image: {self.dense_macs:,}", *self._site_lines()]
        if self.no_sites:
            width = max(len(no.name) for no in self.no_sites)
            told = [f"      {no.name:{width}}  {no.reason}" for no in self.no_sites]
            lines += ["", "convolutions that are no sites:", *told]
        kept = sum(clause.passed is True for clause in self.clauses)
        return "\n".join([*lines, "", f"{kept} of {len(self.clauses)} clauses passed"])

    def _site_lines(self) -> list[str]:
        """Return a table of the sites; a smaller alignment than was asked for is said."""
        width = max(len(site.name) for site in self.sites)
        lines = [f"{'site':>4}  {'convolution':{width}}  {'in':>4}  {'out':>4}  align  bounds"]
        for site in self.sites:
            note = f"  ({self.align} is too coarse)" if site.align < self.align else ""
            lines.append(
                f"{site.index:4}  {site.name:{width}}  {site.in_channels:4}  {site.channels:4}  "
                f"{site.align:5}  {' '.join(map(str, site.bounds))}{note}"
            )
        return lines


def score(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    groups: int = 4,
    align: int = 8,
    num_classes: int = 10,
) -> Scorecard:
    """Return the scorecard of a registered backbone.

    Args:
        name: of the backbone.
        image_shape: (C, H, W).
        groups: per site.
        align: multiple to which group bounds keep.
        num_classes: length of the logits.

    Raises:
        UnknownNameError: nobody registered the name.
        ConfigError: a number below one, or images that the backbone cannot take.
    """
    if min(groups, align) < 1:
        raise ConfigError(f"`groups` and `align` must be >= 1, but got {groups} and {align}.")
    backbones.get(name)
    clauses, network = [], None
    try:
        backbone = backbones.create(name, num_classes=num_classes, image_shape=image_shape)
        clauses.append(Clause(_CREATED, True))
        network = trace(backbone, image_shape, groups=groups, align=align)
        clauses.append(Clause(_TRACED, True))
    except ContractError as error:
        clauses.append(Clause(_CREATED, False, str(error)))
        clauses.append(Clause(_TRACED, None))
    except TracingError as error:
        clauses.append(Clause(_TRACED, False, str(error)))
    if network is None:
        clauses += [Clause(promise, None) for promise in PROMISES]
        return Scorecard(name, image_shape, groups, align, (), 0, tuple(clauses))
    macs = dense_macs(network)
    clauses += try_clauses(network)
    sites, no_sites = network.sites, network.graph.no_sites
    return Scorecard(name, image_shape, groups, align, sites, macs, tuple(clauses), no_sites)
