"""The demo page in a browser, for its test and for the picture in its page of
the docs:
python tests/browser.py work_dirs/trm_ml_scenes/epoch_10.pth demo.png
"""
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

CHROMIUM = shutil.which('chromium') or shutil.which('google-chrome')


@contextmanager
def opened(blocks, size=(1280, 960)):
    """The page of a demo, open in a browser; with the problems that the
    browser told of, and the requests that left this machine."""
    from playwright.sync_api import sync_playwright
    blocks.launch(prevent_thread_lock=True, quiet=True, share=False,
                  server_port=None, footer_links=[], theme=theme())
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM,
                                           args=['--no-sandbox'])
            page = browser.new_page(
                viewport=dict(zip(('width', 'height'), size)))
            page.set_default_timeout(60_000)
            page.problems = []
            page.on('pageerror', lambda e: page.problems.append(str(e)))
            page.on('console', lambda message: page.problems.append(
                message.text) if message.type == 'error' else None)
            page.on('request', lambda request: page.problems.append(
                request.url) if not request.url.startswith(
                    (blocks.local_url, 'data:', 'blob:')) else None)
            page.goto(blocks.local_url)
            page.wait_for_selector('#image')
            yield page
            browser.close()
    finally:
        blocks.close(verbose=False)


def theme():
    import gradio

    from trm_ml_mm.demo.page import FONTS
    return gradio.themes.Default(**FONTS)


def upload(page, element, files):
    """Give files to an input, and wait until they are there."""
    page.set_input_files(f'{element} input[type=file]', files)


def shown_labels(page):
    """Names in the list of labels."""
    return page.locator('#labels .confidence-set .text').all_inner_texts()


def add_class(page, words):
    """Type the words of a new class."""
    field = page.locator('#words textarea, #words input')
    field.fill(words)
    field.press('Enter')


def main(checkpoint, picture):
    """A picture of a scene, its labels and a new class."""
    from trm_ml_mm.apis import load_model
    from trm_ml_mm.cli.demo import examples_of
    from trm_ml_mm.demo.page import build_page
    from trm_ml_mm.demo.viewer import Viewer
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_model(checkpoint)
        examples = examples_of(loaded, folder)
        blocks = build_page(Viewer(loaded), Path(checkpoint).name, examples)
        with opened(blocks) as page:
            upload(page, '#image', examples[2])
            page.locator('#labels .confidence-set').first.wait_for()
            add_class(page, 'green heart')
            page.get_by_text('green heart (new)').first.wait_for()
            page.wait_for_timeout(1500)  # pictures fade in
            page.screenshot(path=picture)


if __name__ == '__main__':
    main(*sys.argv[1:])
