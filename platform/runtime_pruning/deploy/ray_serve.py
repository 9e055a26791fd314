"""An exported bundle on Ray Serve: many machines, and requests that are answered together.

``serve.run(build_app("bundle"))`` on a cluster of yours, or `runtime-pruning serve --engine ray`.
Requests and answers are those of `requests`. What comes in at the same time is run as one batch.
"""

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from runtime_pruning.deploy.requests import MOST_BYTES, Answers, Asked, parse, told
from runtime_pruning.deploy.shipped import load_bundle
from runtime_pruning.errors import UserError

TOGETHER, WAIT_S = 32, 0.005  # requests of a batch at most, and how long the first one waits


class BundleServer:
    """One replica.

    Args:
        folder: of the bundle, seen by every machine.
        threads: of torch.
    """

    def __init__(self, folder: str, threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self._shipped = load_bundle(folder)

    async def __call__(self, request: Request) -> Response:
        """Answer a request, or refuse it with a sentence."""
        stated = request.headers.get("content-length", "")
        if request.method != "POST":
            return PlainTextResponse("A request is a POST of JSON.", 405)
        if not stated.isdigit():
            return PlainTextResponse("A request must state its Content-Length.", 411)
        if int(stated) > MOST_BYTES:
            return PlainTextResponse(f"A request may hold {MOST_BYTES:,} bytes.", 413)
        body = await request.body()
        try:
            asked = await asyncio.to_thread(parse, body, self._shipped)
        except UserError as error:
            return PlainTextResponse(str(error), 400)
        answers: Answers = await self.answer(asked)
        return JSONResponse({"predictions": answers})

    @serve.batch(max_batch_size=TOGETHER, batch_wait_timeout_s=WAIT_S)  # type: ignore[untyped-decorator]
    async def answer(self, requests: list[Asked]) -> list[Answers]:
        """Answer requests together: those at one position of the dial are one batch."""
        return await asyncio.to_thread(self.answer_all, requests)

    def answer_all(self, requests: list[Asked]) -> list[Answers]:
        """Return the answers of requests, in their order."""
        answers: list[Answers] = [[] for _ in requests]
        alike: dict[float | None, list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            alike[request.position].append(number)
        for position, numbers in alike.items():
            images_BCHW = torch.cat([requests[number].images_BCHW for number in numbers])
            found = told(self._shipped.run(images_BCHW, position), self._shipped.card.dense_macs)
            for number in numbers:
                count = len(requests[number].images_BCHW)
                answers[number], found = found[:count], found[count:]
        return answers


def build_app(bundle: str | Path, *, replicas: int = 1, threads: int = 1) -> Any:
    """Return the Serve application of a bundle.

    Args:
        bundle: folder, seen by every machine.
        replicas: processes that answer.
        threads: of torch, and CPUs, of each.
    """
    deployment = serve.deployment(BundleServer).options(
        name="bundle", num_replicas=replicas, ray_actor_options={"num_cpus": threads}
    )
    return deployment.bind(str(Path(bundle).resolve()), threads)
