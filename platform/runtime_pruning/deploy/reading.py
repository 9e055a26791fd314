"""Reading a bundle, whatever it holds."""

from pathlib import Path
from typing import TypeAlias

from runtime_pruning.deploy.bundle import Bundle, read_manifest, read_network_bundle
from runtime_pruning.deploy.cascade_bundle import CASCADE, CascadeBundle, read_cascade_bundle

# Both answer images by `execute`, are moved by `to`, and say what they take by `image_shape`.
AnyBundle: TypeAlias = Bundle | CascadeBundle


def read_bundle(folder: Path) -> AnyBundle:
    """Return what a bundle's folder holds, in evaluation mode: a network, or a cascade of some.

    Raises:
        DataError: the folder is no bundle, is of another schema, or anything in it is damaged; or
            the backbone that is registered now is another than the one that was bundled.
        UnknownNameError: its backbone, its kind of policy or of chooser is registered nowhere.
    """
    if read_manifest(folder).get("kind") == CASCADE:
        return read_cascade_bundle(folder)
    return read_network_bundle(folder)
