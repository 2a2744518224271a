"""Open a page in the browser to play with a trained model."""
import argparse
import tempfile
from pathlib import Path
from typing import List

from .arguments import add_model, command, parse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Open a page in the browser: drop an image and see its '
        'labels and where they are, type a new class, fill in the blanks of '
        'a table')
    parser.add_argument('checkpoint', help='checkpoint of a training')
    add_model(parser)
    parser.add_argument('--table', metavar='FILE',
                        help='CSV file with blanks, which is not uploaded '
                        'then')
    parser.add_argument('--images', metavar='FOLDER',
                        help='with --table: folder of its images')
    parser.add_argument(
        '--host', default='127.0.0.1',
        help='address to listen on (default: this machine alone can open the '
        'page; 0.0.0.0: everybody in the network can)')
    parser.add_argument('--port', type=int, default=7860,
                        help='default: 7860')
    parser.add_argument('--open', action='store_true',
                        help='open the page in a browser')
    return parse(parser)


@command
def main() -> None:
    args = parse_args()
    if (args.table is None) != (args.images is None):
        raise ValueError('Give --table and --images together: a table, and '
                         'the folder of its images.')
    try:
        import gradio
    except ImportError as error:
        raise ImportError('The page needs Gradio: pip install '
                          '"trm_ml_mm[demo]".') from error
    from trm_ml_mm.apis import load_model
    from trm_ml_mm.datasets.images import find_images
    from trm_ml_mm.demo.page import FONTS, build_page
    from trm_ml_mm.demo.viewer import Viewer
    from trm_ml_mm.utils.io import existing
    loaded = load_model(args.checkpoint, args.config, weights=args.weights)
    table, images = None, []
    if args.table:
        table = str(existing(args.table, 'The table', 'correct --table'))
        images = find_images(args.images)
    with tempfile.TemporaryDirectory() as folder:
        page = build_page(Viewer(loaded, args.device),
                          Path(args.checkpoint).name,
                          examples_of(loaded, folder), table, images)
        print(f'Open http://{args.host}:{args.port} in a browser. Ctrl-C '
              'ends it.', flush=True)
        try:
            page.launch(server_name=args.host, server_port=args.port,
                        share=False, quiet=True, inbrowser=args.open,
                        show_error=True, max_file_size='500mb',
                        footer_links=[], theme=gradio.themes.Default(**FONTS))
        except OSError as error:
            raise ValueError(
                f'The page cannot be opened on {args.host}:{args.port} '
                f'({error}): give another --port or --host.') from error


def examples_of(loaded, folder: str) -> List[str]:
    """Scenes to begin with, for the built-in CLIP."""
    from PIL import Image

    from trm_ml_mm.datasets.scenes.world import draw
    if getattr(loaded.model.backbone, 'arch', None) != 'mini':
        return []
    paths = [str(Path(folder, f'scene_{number}.png')) for number in range(4)]
    for number, path in enumerate(paths):
        Image.fromarray(draw((0, 'test', number, 96))[..., ::-1]).save(path)
    return paths
