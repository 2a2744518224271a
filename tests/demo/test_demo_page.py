"""The demo page, driven in a browser as a person would."""
import csv
import socket
import subprocess
import sys

import numpy as np
import pytest
from browser import CHROMIUM, add_class, opened, shown_labels, upload
from PIL import Image
from tests_support import ROOT, trm_ml

from trm_ml_mm.demo.viewer import NEW

pytest.importorskip('gradio', reason='Gradio is not installed')
pytest.importorskip('playwright', reason='Playwright is not installed')
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason='there is no Chromium: bash .ci/chromium '
    'installs it')


def opened_for(viewer, **options):
    from trm_ml_mm.demo.page import build_page
    return opened(build_page(viewer, 'A model', **options))


def picture(page, element):
    """Address of the picture that an element shows."""
    return page.locator(f'{element} img').get_attribute('src')


def until(page, question):
    for _ in range(200):
        if question():
            return
        page.wait_for_timeout(100)
    raise AssertionError('It did not come true in 20 s.')


@needs_browser
def test_an_image_is_looked_at(viewer, scenes):
    path = str(scenes / 'images/00001.png')
    labels = viewer.look(path)
    threshold = round((labels[3]['score'] + labels[4]['score']) / 2, 2)
    expected = [one['name'] for one in labels if one['score'] >= threshold]
    with opened_for(viewer) as page:
        field = page.locator('#threshold input[type=number]')

        def move(value):
            field.fill(str(value))
            field.press('Enter')

        move(0)
        upload(page, '#image', path)
        until(page, lambda: len(shown_labels(page)) == 20)
        page.locator('#region img').wait_for()
        move(threshold)  # fewer labels; no other picture
        until(page, lambda: shown_labels(page) == expected)
        assert f'{len(expected)} labels reach' in page.inner_text('#note')
        assert labels[0]['name'] in page.inner_text('#shown')
        first = picture(page, '#region')
        page.locator('#labels .confidence-set').nth(1).click()
        until(page, lambda: expected[1] in page.inner_text('#shown'))
        until(page, lambda: picture(page, '#region') != first)
        move(1)
        until(page, lambda: 'No label reaches' in page.inner_text('#note'))
        # A new class is shown whatever its score is; another word is refused.
        add_class(page, 'green star')
        until(page, lambda: shown_labels(page) == ['green star' + NEW])
        assert 'green star' + NEW in page.inner_text('#shown')
        add_class(page, 'elephant')
        page.get_by_text('never learned the word "elephant"').wait_for()
        assert shown_labels(page) == ['green star' + NEW]
        page.get_by_role('button', name='Forget new classes').click()
        until(page, lambda: shown_labels(page) == [])
        assert page.problems == []


@needs_browser
def test_blanks_are_filled_and_answers_clicked(viewer, scenes, tmp_path):
    images = sorted(map(str, (scenes / 'images').iterdir()))
    with opened_for(viewer) as page:
        page.get_by_role('tab', name='Blanks of a table').click()
        page.click('#propose')
        page.get_by_text('Give a table and its images').wait_for()
        upload(page, '#table', str(scenes / 'labels.csv'))
        upload(page, '#files', images)
        until(page, lambda: '00011' in page.inner_text('#files'))
        page.click('#propose')
        page.locator('#question h3').wait_for()
        until(page, lambda: 'Proposed:' in page.inner_text('#summary'))
        page.locator('#asked img').wait_for()
        asked = []
        for word in ('present', 'absent', 'unknown'):
            head, image = page.inner_text('#question').split('\n\n')
            asked.append((head[len('Is there: '):-1], image.split(';')[0]))
            page.click(f'#{word}')
            until(page, lambda said=word: f'1 {said}' in page.inner_text(
                '#summary').split('Your answers:')[1])
        page.click('#write')
        page.locator('#written a').first.wait_for()
        with page.expect_download() as download:
            page.locator('#written a').first.click()
        download.value.save_as(tmp_path / 'filled.csv')
        assert page.problems == []
    found, = ({row['image']: row for row in csv.DictReader(file)}
              for file in [open(tmp_path / 'filled.csv')])
    before = {row['image']: row
              for row in csv.DictReader(open(scenes / 'labels.csv'))}
    for (name, image), cell in zip(asked, '10'):
        assert before[image][name] == '' and found[image][name] == cell
    for image, row in before.items():
        for name, cell in row.items():
            assert cell in ('', found[image][name])


@needs_browser
def test_a_table_of_this_machine_is_not_uploaded(viewer, scenes):
    images = sorted(map(str, (scenes / 'images').iterdir()))
    with opened_for(viewer, table=str(scenes / 'labels.csv'),
                    images=images) as page:
        page.get_by_role('tab', name='Blanks of a table').click()
        assert page.locator('#table input').count() == 0
        page.get_by_role('button', name='Propose labels for labels.csv'
                         ).click()
        page.locator('#question h3').wait_for()


@needs_browser
def test_the_command_opens_the_page(checkpoint, capsys):
    """With examples, for the built-in CLIP; and only for this machine."""
    from playwright.sync_api import sync_playwright
    with socket.socket() as place:
        place.bind(('127.0.0.1', 0))
        port = place.getsockname()[1]
    run = subprocess.Popen(
        [sys.executable, str(ROOT / 'tools/demo.py'), str(checkpoint),
         '--port', str(port)], stdout=subprocess.PIPE, text=True)
    try:
        line = run.stdout.readline()
        address = f'http://127.0.0.1:{port}'
        assert address in line
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=CHROMIUM,
                                           args=['--no-sandbox'])
            page = browser.new_page()
            for _ in range(100):
                try:
                    page.goto(address)
                    break
                except Exception:
                    page.wait_for_timeout(200)
            page.locator('.gallery-item, .gallery button').first.click()
            page.locator('#shown strong').wait_for()
            browser.close()
        host = socket.gethostbyname(socket.gethostname())
        if not host.startswith('127.'):
            with pytest.raises(OSError):
                socket.create_connection((host, port), 2)
        assert trm_ml(['demo', checkpoint, '--port', port]) == 2
        assert 'give another --port' in capsys.readouterr().err
    finally:
        run.terminate()
        run.wait()


def test_the_checkpoint_and_the_table_are_checked(tmp_path, checkpoint,
                                                  capsys):
    assert trm_ml(['demo', tmp_path / 'no.pth']) == 2
    assert 'no.pth' in capsys.readouterr().err
    assert trm_ml(['demo', checkpoint, '--table', tmp_path / 't.csv']) == 2
    assert '--table and --images together' in capsys.readouterr().err
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / 'a.png')
    assert trm_ml(['demo', checkpoint, '--table', tmp_path / 't.csv',
                   '--images', tmp_path]) == 2
    assert 't.csv' in capsys.readouterr().err


def test_without_gradio_the_command_says_what_to_install(
        checkpoint, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    assert trm_ml(['demo', checkpoint]) == 2
    assert 'pip install "trm_ml_mm[demo]"' in capsys.readouterr().err
