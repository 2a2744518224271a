"""The console command ``trm-ml``: the scripts of tools/, in any folder."""
import runpy
import sys

from trm_ml_mm.utils.package import package_folder

from . import next_command

# Name, script in tools/, what it does.
COMMANDS = (
    ('train', 'train', 'train a config'),
    ('test', 'test', 'test a checkpoint'),
    ('predict', 'predict', 'label images with a checkpoint'),
    ('calibrate', 'calibrate', 'choose thresholds, fit probabilities'),
    ('fill', 'fill_labels', 'fill in the blanks of a table of labels'),
    ('publish', 'publish_model', 'write a file to hand over'),
    ('report', 'report', 'write a training as an HTML page'),
    ('demo', 'demo', 'open a page in the browser to play with a model'),
    ('export', 'export', 'write an ONNX or PyTorch file'),
    ('split', 'split_table', 'split one table into train, val and test'),
    ('inspect', 'inspect_data', 'look at data before a training'),
    ('inspect-tower', 'inspect_tower', 'look at a CLIP before a training'),
    ('cache', 'cache_features', 'compute the features of images once'),
    ('make-shards', 'make_shards', 'write images into large tar files'),
    ('make-scenes', 'make_scenes', 'write built-in scenes as files'),
    ('masks', 'make_masks', 'draw masks of known labels'),
    ('class-prior', 'class_prior', 'estimate how common each class is'),
    ('grid', 'run_grid', 'train many configs and seeds'),
    ('tune', 'tune', 'search settings on the validation set'),
    ('random-weights', 'make_random_weights', 'write a CLIP for smoke runs'),
)


def main() -> None:
    """Run the script of a command with the rest of the command line."""
    scripts = {name: script for name, script, _ in COMMANDS}
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print('usage: trm-ml COMMAND ...\n')
        for command, _, what in COMMANDS:
            print(f'  {command:16} {what}')
        print('\n"trm-ml COMMAND --help" says what a command takes. Where it '
              "takes a config, the name of\none of the package's will do: "
              'trm-ml train trm_ml_scenes')
        return
    if name not in scripts:
        sys.exit(f'trm-ml has no command "{name}": it has '
                 f'{", ".join(scripts)}.')
    next_command.COMMAND_NAMES.update(
        {script: command for command, script, _ in COMMANDS})
    path = package_folder() / 'tools' / f'{scripts[name]}.py'
    sys.argv = [f'trm-ml {name}', *sys.argv[2:]]
    runpy.run_path(str(path), run_name='__main__')


if __name__ == '__main__':
    main()
