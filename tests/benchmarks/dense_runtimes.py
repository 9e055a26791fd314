"""The dense reference against other runtimes: ours, torch.compile, ONNX Runtime and OpenVINO.

Run:     uv pip install -r requirements-benchmarks.txt
         python tests/benchmarks/dense_runtimes.py --backbone resnet20-cifar mcifarnet
Expect:  a row per backbone and size of batch, all runtimes in turns in one process, on the same
         number of threads, in float32: milliseconds of the least reading, and how much longer each
         takes than ours, median over rounds with a bootstrap interval.

Each answer is compared with plain PyTorch's before anything is timed. ``--out FILE`` keeps the rows
as JSON. A speed-up over dense is honest only against the fastest of these.
"""

import argparse
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from runtime_pruning import backbones
from runtime_pruning.executor import deploy
from runtime_pruning.executor.native import library
from runtime_pruning.network import trace
from runtime_pruning.timing.contamination import load_average
from runtime_pruning.timing.device import this_device
from runtime_pruning.timing.turns import interleaved

OURS = "ours"
SHAPE = (3, 32, 32)
TOLERANCE = 1e-4  # of the largest logit
Runtime = Callable[[], np.ndarray[Any, Any]]


def runtimes(
    backbone: nn.Module, images_BCHW: Tensor, threads: int
) -> Iterator[tuple[str, Runtime]]:
    """Yield each runtime by name, its network compiled for so many images."""
    shape: Any = tuple(images_BCHW.shape[1:])
    deployed = deploy(trace(backbone, shape).eval())
    yield OURS, lambda: deployed.dense(images_BCHW).numpy()
    yield "torch.compile", compiled(backbone, images_BCHW)
    model = onnx_of(backbone, images_BCHW)
    yield "ONNX Runtime", onnx_runtime(model, images_BCHW, threads)
    yield "OpenVINO", openvino_runtime(model, images_BCHW, threads)


def compiled(backbone: nn.Module, images_BCHW: Tensor) -> Runtime:
    """Return the backbone by torch.compile, weights frozen, pixel by pixel."""
    torch._inductor.config.freezing = True
    run = torch.compile(backbone.to(memory_format=torch.channels_last))
    images_BCHW = images_BCHW.contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def call() -> np.ndarray[Any, Any]:
        found: Tensor = run(images_BCHW)
        return found.numpy()

    return call


def onnx_of(backbone: nn.Module, images_BCHW: Tensor) -> bytes:
    """Return the backbone as an ONNX model for images of this shape."""
    file = io.BytesIO()
    exported = torch.onnx.export(backbone, (images_BCHW,), dynamo=True, verbose=False)
    assert exported is not None
    exported.save(file)
    return file.getvalue()


def onnx_runtime(model: bytes, images_BCHW: Tensor, threads: int) -> Runtime:
    """Return the model by ONNX Runtime with all its optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: images_BCHW.numpy()}
    return lambda: np.asarray(session.run(None, feed)[0])


def openvino_runtime(model: bytes, images_BCHW: Tensor, threads: int) -> Runtime:
    """Return the model by OpenVINO, tuned for latency, in float32."""
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    read = core.read_model(model=model, weights=b"")
    request = core.compile_model(read, "CPU", settings).create_infer_request()
    tensor = openvino.Tensor(images_BCHW.numpy(), shared_memory=True)

    def call() -> np.ndarray[Any, Any]:
        request.infer([tensor])
        return np.asarray(request.get_output_tensor(0).data)

    return call


def row(name: str, batch: int, threads: int, rounds: int) -> dict[str, Any]:
    """Return the figures of one backbone at one size of batch.

    Raises:
        AssertionError: a runtime answers otherwise than plain PyTorch.
    """
    backbone = backbones.create(name, num_classes=10, image_shape=SHAPE, seed=0).eval()
    images_BCHW = torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected_BK = backbone(images_BCHW).numpy()
    calls = dict(runtimes(backbone, images_BCHW, threads))
    for runtime, call in calls.items():
        apart = float(np.abs(call() - expected_BK).max() / np.abs(expected_BK).max())
        assert apart < TOLERANCE, f"{runtime} is off by {apart:.2g} of the largest logit"
    seconds = interleaved(calls, rounds=rounds)
    found: dict[str, Any] = {"backbone": name, "batch": batch, "threads": threads}
    ours_R = np.array(seconds[OURS])
    for runtime, own in seconds.items():
        found[f"{runtime} ms"] = round(1e3 * min(own), 4)
        if runtime != OURS:
            ratio_R = np.array(own) / ours_R
            drawn = np.random.default_rng(0).integers(0, len(ratio_R), (2000, len(ratio_R)))
            ends = np.quantile(np.median(ratio_R[drawn], axis=1), (0.025, 0.975))
            found[f"{runtime} ratio"] = round(float(np.median(ratio_R)), 3)
            found[f"{runtime} low"], found[f"{runtime} high"] = np.round(ends, 3).tolist()
    found["load"] = round(load_average(), 2)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and keep the rows if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", nargs="+", default=["resnet20-cifar"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    rows = []
    for name in asked.backbone:
        for batch in asked.batch:
            found = row(name, batch, asked.threads, asked.rounds)
            rows.append(found)
            print(json.dumps(found), flush=True)
    if asked.out is not None:
        facts = {"device": this_device().fingerprint, "kernels": library.description()}
        asked.out.write_text(json.dumps({**facts, "records": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
