"""Commands that serve a bundle over HTTP, or write it as a model of MLflow's."""

import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from runtime_pruning.cli.export import Bundle
from runtime_pruning.cli.options import Panel, Threads, use_threads

app = typer.Typer()
command = app.command(rich_help_panel=Panel.SHIP)


class Server(StrEnum):
    """Who answers."""

    MLFLOW = "mlflow"
    RAY = "ray"


@command
def serve(
    bundle: Bundle,
    engine: Annotated[
        Server, typer.Option(help="mlflow: one process; ray: Ray Serve, many machines.")
    ] = Server.MLFLOW,
    host: Annotated[str, typer.Option(help="To listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="To listen at.")] = 5001,
    replicas: Annotated[int, typer.Option(help="Of Ray Serve's: processes that answer.")] = 1,
    threads: Threads = None,
) -> None:
    """Answer images over HTTP until interrupted."""
    use_threads(threads)
    if engine is Server.RAY:
        _serve_on_ray(bundle, host, port, replicas, threads)
        return
    from runtime_pruning.deploy.mlflow_model import save_model
    from runtime_pruning.deploy.model_server import server_of

    with tempfile.TemporaryDirectory(prefix="serve-") as name:
        model = Path(name) / "model"
        save_model(bundle, model)
        server = server_of(model, host=host, port=port)
        print(f"POST http://{host}:{port}/invocations", flush=True)
        server.run()


def _serve_on_ray(bundle: Path, host: str, port: int, replicas: int, threads: int | None) -> None:
    """Run Ray Serve on the cluster that RAY_ADDRESS names, or on this machine."""
    import signal

    from ray import serve as ray_serve

    from runtime_pruning.deploy.card import read_card
    from runtime_pruning.deploy.ray_serve import build_app

    read_card(bundle)  # what cannot be served is refused before anything starts
    ray_serve.start(http_options={"host": host, "port": port})
    ray_serve.run(build_app(bundle, replicas=replicas, threads=threads or 1))
    print(f"POST http://{host}:{port}/", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        ray_serve.shutdown()


@command
def to_mlflow(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="Folder of the model, empty or absent.")],
) -> None:
    """Write a bundle as a model for `mlflow models serve`."""
    from runtime_pruning.deploy.mlflow_model import save_model

    save_model(bundle, out)
    print(f"mlflow models serve --model-uri {out} --env-manager local --port 5001")


@command
def to_onnx(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="The file.")],
    batch: Annotated[int, typer.Option(help="Images of each call, fixed in the file.")] = 1,
) -> None:
    """Write a bundle's static point as ONNX."""
    from runtime_pruning.deploy.onnx_model import save_onnx
    from runtime_pruning.deploy.shipped import load_bundle

    save_onnx(load_bundle(bundle), out, batch=batch)
    print(f"Wrote {out}: images of shape (B, C, H, W), float32 in [0, 1], with B = {batch}")
