"""What a backbone does, as torch.fx nodes with the values that they had on real images.

torch.fx alone sees no shapes, no in-place aliases and no training mode. The recorder runs each
node as it is recorded, so that shapes are plain numbers where the backbone asks for them (the
number of images stays symbolic), writes to a tensor are seen by its version counter, and values
that share memory by their storage. A module that cannot be followed is recorded as one call.

Dimensions: B images, C channels, H W pixels.
"""

import operator
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from runtime_pruning.errors import TracingError
from runtime_pruning.network.batch_norm import NORMS
from runtime_pruning.network.mac_counter import MacCounter
from runtime_pruning.network.per_channel import inherits_forward, rule_for

BATCH = 2  # images that are recorded
_ERRORS = (
    *(fx.proxy.TraceError, TypeError, ValueError, RuntimeError, AttributeError, IndexError),
    *(KeyError, NameError, AssertionError),
)


class UnfollowableError(Exception):
    """A module that torch.fx cannot follow.

    Attributes:
        path: of the module; empty for the backbone.
        told: what is said of it.
    """

    def __init__(self, path: str, told: str) -> None:
        super().__init__(told)
        self.path = path
        self.told = told


class Recording:
    """A graph with what its nodes did.

    Attributes:
        graph: has one placeholder.
        values: of each node, on `BATCH` images.
        writes: the arguments that a node writes to.
        macs: multiply-accumulates of a node per image, as PyTorch counts them.
        owners: path of the module whose forward holds a node.
    """

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.values: dict[fx.Node, Any] = {}
        self.writes: dict[fx.Node, list[fx.Node]] = {}
        self.macs: dict[fx.Node, int] = {}
        self.owners: dict[fx.Node, str] = {}

    @property
    def shapes(self) -> dict[fx.Node, tuple[int, ...]]:
        """The shape of each tensor."""
        return {n: tuple(v.shape) for n, v in self.values.items() if isinstance(v, Tensor)}


@torch.no_grad()
def record(
    backbone: nn.Module, images_BCHW: Tensor, calls: frozenset[str], *, training: bool
) -> Recording:
    """Return what the backbone does to images; its modes, weights and statistics stay.

    Args:
        backbone: what is recorded.
        images_BCHW: `BATCH` of them.
        calls: paths of modules that are recorded as one call.
        training: whether modules that are looked into are in training mode. The others compute as
            in evaluation.

    Raises:
        UnfollowableError: torch.fx cannot follow a module.
        TracingError: a node cannot run, or a buffer is written to unseen.
    """
    recorder = _Recorder(images_BCHW, calls)
    with _modes(backbone, recorder, training=training), _buffers(backbone) as unseen:
        try:
            recorder.recording.graph = recorder.trace(backbone)
        except (TracingError, UnfollowableError):
            raise
        except _ERRORS as error:
            raise UnfollowableError("", _told(backbone, error)) from error
        unseen(recorder.written)
    return recorder.recording


class Probe(fx.Proxy):
    """Stands for a value while a backbone is recorded; knows the value's shape."""

    tracer: "_Recorder"

    def __getattr__(self, k: str) -> Any:
        value = self.tracer.value(self.node)
        if isinstance(value, Tensor):
            if k == "shape":
                return self._sizes(value)
            if k == "ndim":
                return value.ndim
            if k in ("dim", "ndimension"):
                return lambda: value.ndim
            if k == "size":
                return lambda dim=None: self._sizes(value)[slice(None) if dim is None else dim]
        return super().__getattr__(k)

    def _sizes(self, value: Tensor) -> "_Sizes":
        """Return the shape; the number of images is a value of its own."""
        first, *rest = value.shape or (None,)
        if first is None or self.node not in self.tracer.from_images:
            return _Sizes(value.shape)
        images = self.tracer.create_proxy("call_method", "size", (self, 0), {})
        return _Sizes((images, *rest))

    def __len__(self) -> int:
        value = self.tracer.value(self.node)
        if isinstance(value, tuple | list):
            return len(value)
        return super().__len__()

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tracer.create_proxy("call_function", operator.setitem, (self, index, value), {})


class _Sizes(tuple[Any, ...]):
    """A shape whose first entry may stand for the number of images."""

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if not isinstance(index, slice):
            return found
        return torch.Size(found) if all(type(part) is int for part in found) else _Sizes(found)

    def numel(self) -> Any:
        """Return the number of elements."""
        total: Any = 1
        for part in self:
            total = part * total
        return total


def _in_place(function: Callable[..., Any]) -> Callable[[Probe, Any], Any]:
    """Return a method for `Probe` that records an arithmetic assignment."""

    def method(self: Probe, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, other), {})

    return method


for _name in ("iadd", "isub", "imul", "itruediv", "ifloordiv", "imod", "ipow", "iand", "ior"):
    setattr(Probe, f"__{_name}__", _in_place(getattr(operator, _name)))


class _Recorder(fx.Tracer):
    """Records nodes and runs each as it comes."""

    def __init__(self, images_BCHW: Tensor, calls: frozenset[str]) -> None:
        super().__init__()
        self.recording = Recording()
        self.from_images: set[fx.Node] = set()
        self.written: dict[int, int] = {}  # writes of nodes to a tensor, by its id
        self._images_BCHW = images_BCHW
        self._calls = calls
        self._running = False
        self._norm_part = False

    # What torch.fx asks for

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether a module is recorded as one call."""
        if module_qualified_name in self._calls or rule_for(m) is not None:
            return True
        if "forward" in vars(m):
            return False
        own = inherits_forward(m, nn.Conv2d) or inherits_forward(m, nn.Linear)
        return own or (not isinstance(m, NORMS) and super().is_leaf_module(m, ""))

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Record a call, or look into the module."""
        if self._running:
            return forward(*args, **kwargs)
        path = self.path_of_module(m)
        try:
            if _is_norm_with_activation(m) and path not in self._calls:
                return self._norm_with_activation(m, path, args)
            return super().call_module(m, forward, args, kwargs)
        except (TracingError, UnfollowableError):
            raise
        except _ERRORS as error:
            raise UnfollowableError(path, _told(m, error)) from error

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: Any) -> Any:
        """Return an attribute of a module, a parameter as a proxy."""
        if self._running:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def proxy(self, node: fx.Node) -> Probe:
        """Return what stands for a node's value."""
        return Probe(node, self)

    def create_proxy(
        self, kind: str, target: Any, args: Any, kwargs: Any, *more: Any, **others: Any
    ) -> Any:
        """Record a node and run it; an argument of the backbone that has a default keeps it."""
        if kind == "placeholder" and args:
            return args[0]
        made = super().create_proxy(kind, target, args, kwargs, *more, **others)
        self.value(made.node)
        return made

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Return a truth that no image and no number of images decides."""
        value = self.value(obj.node)
        if isinstance(value, bool | int | None) and not self._counts_images(obj.node):
            return bool(value)
        return super().to_bool(obj)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """Return the parts of a tuple."""
        value = self.value(obj.node)
        if isinstance(value, tuple | list):
            parts: Any = obj
            return iter([parts[index] for index in range(len(value))])
        return super().iter(obj)

    # Running

    def value(self, node: fx.Node) -> Any:
        """Return a node's value; run it where it has not run."""
        values = self.recording.values
        if node not in values:
            values[node] = self._run(node)
        return values[node]

    def _run(self, node: fx.Node) -> Any:
        """Run one node; note what it writes to, and its MACs."""
        parts = node.all_input_nodes
        before = {part: _versions(self.value(part)) for part in parts}
        self.recording.owners[node] = self.scope.module_path
        if node.op == "placeholder" or any(part in self.from_images for part in parts):
            self.from_images.add(node)
        counter = MacCounter()
        self._running = True
        try:
            with counter:
                value = self._called(node)
        except _ERRORS as error:
            raise TracingError(
                f"Node {node.name!r} ({node.op} {node.target}) cannot run: "
                f"{(str(error).splitlines() or [''])[0]}"
            ) from error
        finally:
            self._running = False
        macs = counter.flops // 2
        self.recording.macs[node] = macs // BATCH if node in self.from_images else macs
        changed = [part for part in parts if _versions(self.value(part)) != before[part]]
        if changed:
            self.recording.writes[node] = changed
            for part in changed:
                written = self.value(part)
                self.written[id(written)] = _versions(written)
        return value

    def _called(self, node: fx.Node) -> Any:
        """Return what a node computes."""
        args, kwargs = cast(Any, map_arg((node.args, node.kwargs), self.value))
        if node.op == "placeholder":
            return self._images_BCHW
        if node.op == "get_attr":
            return _attribute(self.root, str(node.target))
        if node.op == "call_module":
            module: Any = self.root.get_submodule(str(node.target))
            if self._norm_part:
                node.meta["batch_norm"] = True
                return nn.BatchNorm2d.forward(module, *args)
            return module(*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        target: Any = node.target
        return target(*args, **kwargs)

    def _norm_with_activation(self, m: Any, path: str, args: Any) -> Any:
        """Record a batch norm that is followed by its own dropout and activation."""
        self._norm_part = True
        try:
            normalised = self.create_proxy("call_module", path, args, {})
        finally:
            self._norm_part = False
        return m.act(m.drop(normalised))

    def _counts_images(self, node: fx.Node) -> bool:
        """Whether a plain number depends on the number of images."""
        value = self.value(node)
        if isinstance(value, Tensor) or node not in self.from_images:
            return False
        if node.op == "call_method" and node.target == "size":
            return True
        return any(self._counts_images(part) for part in node.all_input_nodes)


def _is_norm_with_activation(module: nn.Module) -> bool:
    """Whether a module is timm's ``BatchNormAct2d``, or one of its shape."""
    parts = {name for name, _ in module.named_children()}
    own = isinstance(module, NORMS) and rule_for(module) is None
    return own and parts == {"drop", "act"}


def _versions(value: Any) -> Any:
    """Return what changes when a tensor, or one in a tuple, is written to."""
    if isinstance(value, Tensor):
        return 0 if value.is_inference() else value._version
    return tuple(map(_versions, value)) if isinstance(value, tuple | list) else 0


def _attribute(root: nn.Module, path: str) -> Any:
    """Return an attribute of a module by its dotted path."""
    found: Any = root
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _told(module: nn.Module, error: BaseException) -> str:
    """Return why torch.fx cannot follow a module, with the line of the backbone's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/torch/" not in f.filename and f.filename != __file__]
    line = f" at `{own[-1].line}` (line {own[-1].lineno})" if own else ""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"torch.fx cannot follow {type(module).__name__}{line}: {reason}"


@contextmanager
def _modes(backbone: nn.Module, recorder: _Recorder, *, training: bool) -> Iterator[None]:
    """Put modules in evaluation mode, those that are looked into in training mode if asked."""
    before = {module: module.training for module in backbone.modules()}
    inside = set[nn.Module]()
    for path, module in backbone.named_modules():
        alone = recorder.is_leaf_module(module, path) or _is_norm_with_activation(module)
        leaf = bool(path) and (alone or module in inside)
        if leaf:
            inside.update(module.children())
        module.training = training and not leaf
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in before.items():
            module.training = mode


@contextmanager
def _buffers(backbone: nn.Module) -> Iterator[Callable[[dict[int, int]], None]]:
    """Restore buffers; yield a check that nothing but recorded nodes wrote to a tensor."""
    named = [*backbone.named_parameters(), *backbone.named_buffers()]
    versions = {name: (tensor, _versions(tensor)) for name, tensor in named}
    before = [(b, _versions(b), b.detach().clone()) for b in backbone.buffers()]

    def check(written: dict[int, int]) -> None:
        for name, (tensor, version) in versions.items():
            if _versions(tensor) != written.get(id(tensor), version):
                raise TracingError(
                    f"The backbone's forward writes to {name!r} by other means than tensor "
                    "operations that torch.fx records; keep such state in a module of torch.nn."
                )

    try:
        yield check
    finally:
        for buffer, version, kept in before:
            if _versions(buffer) != version:
                buffer.copy_(kept)
