"""Everything is computed, and absent channels are set to zero: executed MACs are dense.

Dimensions: B images, C channels, H W pixels.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from runtime_pruning.executor.batching.plans import Decider, Outcome
from runtime_pruning.executor.batching.uniform import features_of
from runtime_pruning.executor.program.stage_programs import FULL, MASKED, StagePrograms
from runtime_pruning.executor.program.steps import Mask, Masks


def run_dense(programs: StagePrograms, images_BCHW: Tensor, decide: Decider, sites: int) -> Outcome:
    """Compute everything; set absent channels to zero wherever they are written."""
    masks: Masks = {}
    state = programs.new_state(images_BCHW, masks)
    columns: list[Sequence[int]] = []
    macs = programs.run(0, MASKED, state)
    for site in range(sites):
        columns.append(decide(site, partial(features_of, programs, site, state)))
        for deciding in programs.widths[site + 1]:
            if deciding not in masks:
                masks[deciding] = present(programs, deciding, columns, images_BCHW.device)
        macs += programs.run(site + 1, MASKED, state)
    plans = list(zip(*columns, strict=True))
    return Outcome(state[programs.logits_slot], plans, [macs] * len(plans))


def present(
    programs: StagePrograms,
    sites: frozenset[int],
    columns: list[Sequence[int]],
    device: torch.device,
) -> Mask:
    """Return what is present of a value whose width these sites decide."""
    whole = max(programs.bounds[site][FULL] for site in sites)
    counts = [
        max(programs.bounds[site][groups] for site, groups in zip(sites, row, strict=True))
        for row in zip(*(columns[site] for site in sites), strict=True)
    ]
    if min(counts) == whole:
        return Mask(whole, None)
    counts_B = torch.tensor(counts)
    channels = counts[0] if min(counts) == max(counts) else counts_B
    return Mask(channels, (torch.arange(whole) < counts_B[:, None]).to(device))
