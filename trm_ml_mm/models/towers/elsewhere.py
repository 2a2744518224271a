"""CLIPs that open_clip has no name for: a folder as it saves one, or a
repository of the Hugging Face hub with the same files.

Such a folder holds ``open_clip_config.json``, one weights file, and, if the
text tower does not read by CLIP's own tokenizer, that of Hugging Face.
"""
import json
from pathlib import Path

import open_clip
from open_clip.pretrained import download_pretrained_from_hf

LOCAL, HUB = 'local-dir:', 'hf-hub:'
ELSEWHERE = (LOCAL, HUB)
CONFIG = 'open_clip_config.json'
KINDS = ('.safetensors', '.bin', '.pth', '.pt')


def config_elsewhere(arch: str) -> dict:
    """The architecture in a folder or repository.

    Raises:
        FileNotFoundError: If there is none, or it cannot be downloaded.
        ValueError: If its file is not open_clip's.
    """
    try:
        config = open_clip.get_model_config(arch)
    except json.JSONDecodeError as error:
        raise ValueError(f'{arch}: {CONFIG} is not JSON: {error}.') from error
    except (OSError, RuntimeError, ValueError) as error:
        raise FileNotFoundError(
            f'{arch}: {CONFIG} cannot be read. {error}') from error
    missing = [key for key in ('embed_dim', 'vision_cfg', 'text_cfg')
               if not isinstance(config, dict) or key not in config]
    if missing:
        raise ValueError(
            f'{arch}: {CONFIG} does not describe a CLIP: it has no '
            f'{", ".join(missing)}. open_clip writes such files when it saves '
            'a model for the hub.')
    return config


def own_weights(arch: str) -> str:
    """Path of the weights file in a folder or repository.

    Raises:
        FileNotFoundError: If there is none, or it cannot be downloaded.
        ValueError: If there are several.
    """
    if arch.startswith(HUB):
        return str(download_pretrained_from_hf(arch.removeprefix(HUB)))
    folder = Path(arch.removeprefix(LOCAL))
    found = sorted(path for path in folder.iterdir() if path.suffix in KINDS)
    # The same weights are often saved twice.
    found = [path for path in found if path.suffix == KINDS[0]] or found
    if not found:
        raise FileNotFoundError(
            f'{folder} holds no weights: put a file with the suffix '
            f'{", ".join(KINDS)} beside {CONFIG}, or set weights.')
    if len(found) > 1:
        raise ValueError(
            f'{folder} holds {len(found)} weights files '
            f'({", ".join(path.name for path in found)}): set weights to one '
            'of them.')
    return str(found[0])
