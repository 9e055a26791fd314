"""Images that share a plan, and one image alone.

Dimensions: B images, C channels, H W pixels, F features, K classes.
"""

from functools import partial

from torch import Tensor

from runtime_pruning.executor.batching.plans import Outcome, Plan, PolicyDecider
from runtime_pruning.executor.commands.instruction import State
from runtime_pruning.executor.kernels.compiled import pooled
from runtime_pruning.executor.program.stage_programs import StagePrograms


def features_of(programs: StagePrograms, site: int, state: State) -> Tensor:
    """Return ``features_BF``, float32: the pooled input of a site; absent channels are 0."""
    most = programs.lowered.sources[site].width.channels
    return pooled(state[programs.site_slots[site]], most)


def run_uniform(programs: StagePrograms, images_BCHW: Tensor, plan: Plan) -> tuple[Tensor, int]:
    """Return ``logits_BK`` of images that share a plan, and the MACs of each."""
    state = programs.new_state(images_BCHW)
    chain = programs.chain(plan)
    if chain is not None:
        for step in chain.steps:
            step(state)
        return state[programs.logits_slot], chain.macs
    macs = sum(
        programs.run(stage, programs.key(stage, plan), state) for stage in range(len(plan) + 1)
    )
    return state[programs.logits_slot], macs


def run_alone(
    programs: StagePrograms, image_1CHW: Tensor, decide: PolicyDecider, sites: int
) -> Outcome:
    """Run one image, deciding as it goes."""
    state = programs.new_state(image_1CHW)
    plan: list[int] = []
    macs = programs.run(0, (), state)
    look = decide.decide_from_map
    for site in range(sites):
        groups = None if look is None else look(site, state[programs.site_slots[site]])
        if groups is None:
            (groups,) = decide(site, partial(features_of, programs, site, state))
        plan.append(groups)
        macs += programs.run(site + 1, programs.key(site + 1, plan), state)
    return Outcome(state[programs.logits_slot], [plan], [macs])
