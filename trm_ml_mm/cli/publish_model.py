"""Write a trained model as a file to hand over."""
import argparse

from .arguments import add_model, command, parse


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write a trained model as a file to hand over, with a '
        'model card')
    parser.add_argument('checkpoint', help='checkpoint of a training')
    add_model(parser)
    parser.add_argument(
        '--out', required=True, metavar='FOLDER', help='a new folder')
    parser.add_argument(
        '--name', help="default: the name of the checkpoint's folder")
    parser.add_argument(
        '--bake-text', action='store_true',
        help='store the text features: then no text tower is needed')
    parser.add_argument(
        '--license', help='of the file, for the card: such as apache-2.0')
    return parse(parser)


@command
def main() -> None:
    args = parse_args()
    from trm_ml_mm.apis.publish import publish_model
    release = publish_model(
        args.checkpoint, args.out, args.name, args.config, args.weights,
        args.bake_text, args.license)
    print(f'{release.file}: {release.file.stat().st_size:,} bytes')
    print(f'{release.card}')
