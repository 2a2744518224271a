"""MMPretrain's models of images and text, and a library that they no longer
fit."""
from importlib.metadata import PackageNotFoundError, version

from mmengine.utils import digit_version

NEWEST = '4.51'  # of transformers, that they can be imported with


def leave_out_multimodal() -> None:
    """Let MMPretrain be imported beside a new ``transformers``.

    If ``pycocotools`` is installed too, MMPretrain 1.2 also imports its BLIP,
    LLaVA and others, which fail. None of them is used here. MMPretrain has its
    own way to leave them out: building one then says what is missing. It must
    be told before it imports its models.
    """
    try:
        version('pycocotools')
        found = digit_version(version('transformers'))
    except PackageNotFoundError:
        return
    if found[:2] > digit_version(NEWEST)[:2]:
        from mmpretrain.utils import dependency
        dependency.WITH_MULTIMODAL = False
