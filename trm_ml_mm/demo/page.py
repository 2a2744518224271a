"""The page: what stands where, and what happens at a click."""
import html
import tempfile
from functools import partial, wraps
from pathlib import Path
from typing import Callable, Optional, Sequence

import gradio as gr

from trm_ml_mm.annotation.questions import VALUES
from trm_ml_mm.utils.errors import root_cause

from .blanks import Blanks
from .viewer import NEW, Viewer, reaches

LISTED = 20  # labels in the list of an image
BUTTONS = ['download', 'fullscreen']  # of pictures
# No font is fetched from elsewhere.
FONTS = dict(font=['system-ui', 'sans-serif'], font_mono=['monospace'])
KEPT = 3600  # seconds that an uploaded file is kept


def told(function: Callable) -> Callable:
    """Show the sentence of an error on the page, and leave the rest."""
    @wraps(function)
    def run(*arguments, **options):
        try:
            return function(*arguments, **options)
        except (ValueError, OSError) as error:
            # Not gr.Error, which would cover every output.
            gr.Warning(html.escape(str(root_cause(error))), duration=None)
            return gr.skip()

    return run


def build_page(viewer: Viewer, title: str, examples: Sequence[str] = (),
               table: Optional[str] = None, images: Sequence[str] = ()
               ) -> gr.Blocks:
    """The page of a model.

    Args:
        viewer: The model.
        title: Of the page.
        examples: Image files to begin with.
        table: CSV file with blanks on this machine; None: it is uploaded.
        images: Files of its images.
    """
    with gr.Blocks(title=title, analytics_enabled=False,
                   delete_cache=(KEPT, KEPT)) as page:
        gr.Markdown(f'# {title}')
        names = ', '.join(viewer.predict.classes)
        with gr.Accordion(f'{len(viewer.predict.classes)} classes',
                          open=False):
            gr.Textbox(names, show_label=False, interactive=False,
                       container=False)
        with gr.Tab('An image'):
            image_tab(viewer, examples)
        with gr.Tab('Blanks of a table'):
            blanks_tab(viewer, table, images)
    return page


def image_tab(viewer: Viewer, examples: Sequence[str]) -> None:
    """Drop an image, see its labels and where they are, add a class."""
    labels, added = gr.State([]), gr.State(())
    with gr.Row():
        with gr.Column():
            image = gr.Image(type='filepath', label='Image',
                             sources=['upload', 'clipboard'],
                             elem_id='image')
            if examples:
                gr.Examples([[path] for path in examples], image,
                            label='Examples', cache_examples=False)
            own = gr.Checkbox(
                viewer.is_calibrated, visible=viewer.is_calibrated,
                label='Each class has the threshold of the calibration')
            threshold = gr.Slider(
                0, 1, .5, step=.01, label='Threshold', elem_id='threshold',
                info='Labels with at least this score are present.' + (
                    '' if viewer.is_calibrated else ' The model is not '
                    'calibrated, so a score is no probability.'),
                interactive=not viewer.is_calibrated)
            words = gr.Textbox(
                label='A new class, in words', elem_id='words',
                info='It is recognised by these words alone. Press Enter.',
                placeholder='red car')
            forget = gr.Button('Forget new classes', size='sm')
        with gr.Column():
            found = gr.Label(label='Labels: click one to see where it is',
                             show_heading=False, elem_id='labels')
            note = gr.Markdown(elem_id='note')
            region = gr.Image(label='Where it was seen', interactive=False,
                              elem_id='region', buttons=BUTTONS)
            shown = gr.Markdown(elem_id='shown')

    def listed(labels, threshold, own):
        if not labels:
            return None, ''
        threshold = None if own else threshold
        count = sum(reaches(label, threshold) for label in labels)
        chosen = {label['name']: label['score'] for label in labels
                  if label['name'].endswith(NEW) or reaches(label, threshold)}
        words = [f'{count} labels reach the threshold.' if count > 1 else
                 'One label reaches the threshold.' if count else
                 'No label reaches the threshold. Highest: '
                 f'{labels[0]["name"]}, {labels[0]["score"]:.2f}.']
        if len(chosen) > LISTED:
            words.append(f'The {LISTED} highest are shown.')
        return dict(list(chosen.items())[:LISTED]) or None, ' '.join(words)

    def drawn(path, labels, name=None):
        if not labels or path is None:
            return None, ''
        label = next((label for label in labels if label['name'] == name),
                     labels[0])
        where = '' if viewer.has_maps else (
            ' This model looks at the whole image, and says of no label '
            'where it is.')
        return viewer.region(path, label), (
            f'**{label["name"]}**, score {label["score"]:.2f}.{where}')

    def look(path, added, threshold, own):
        labels = [] if path is None else viewer.look(path, added)
        return labels, *listed(labels, threshold, own), *drawn(path, labels)

    @told
    def add(text, path, added, threshold, own):
        if not text.strip():
            return (text, added, *(gr.skip(), ) * 5)
        added = viewer.add_class(text, added)
        labels, *shown = look(path, added, threshold, own)
        return ('', added, labels, *shown[:2],
                *drawn(path, labels, added[-1] + NEW))

    def choose(path, labels, event: gr.SelectData):
        return drawn(path, labels, event.value)

    everything = [labels, found, note, region, shown]
    settings = [threshold, own]
    image.change(told(look), [image, added, *settings], everything)
    gr.on([threshold.change, own.change], listed, [labels, *settings],
          [found, note], show_progress='hidden')
    own.change(lambda own: gr.Slider(interactive=not own), own, threshold)
    found.select(choose, [image, labels], [region, shown])
    words.submit(add, [words, image, added, *settings],
                 [words, added, *everything])
    forget.click(lambda: (), None, added).then(
        told(look), [image, added, *settings], everything)


def blanks_tab(viewer: Viewer, table: Optional[str], images: Sequence[str]
               ) -> None:
    """A table goes in, proposals come out, answers are clicked."""
    blanks = gr.State(None)
    folder = tempfile.TemporaryDirectory()  # gone when the page is
    gr.Markdown(
        'The model proposes labels for the blanks of a table (1 present, 0 '
        'absent, blank unknown), and asks for those that it is least sure '
        'of. It should not have been trained on this table: `trm-ml fill` '
        'trains models that have not seen the images.')
    with gr.Row():
        given = gr.File(label='Table (CSV)', file_types=['.csv'], height=160,
                        elem_id='table', visible=table is None)
        files = gr.File(label='Images', file_count='multiple', height=160,
                        elem_id='files', visible=table is None)
    with gr.Row():
        ignored = gr.Textbox(label='Columns that are no classes',
                             placeholder='patient, remark')
        precision = gr.Slider(.5, .99, .95, step=.01, label='Precision',
                              info='This ratio of the proposals shall be '
                              'right.')
    start = gr.Button('Propose labels' if table is None else
                      f'Propose labels for {Path(table).name}',
                      variant='primary', elem_id='propose')
    summary = gr.Markdown(elem_id='summary')
    with gr.Row(visible=False) as asking:
        with gr.Column():
            question = gr.Markdown(elem_id='question')
            with gr.Row():
                buttons = [(gr.Button(word.capitalize(), elem_id=word), value)
                           for word, value in VALUES.items()]
                back = gr.Button('Back', elem_id='back')
            with gr.Row():
                save = gr.Button('Write the table', elem_id='write')
                save_answers = gr.Button('Write it without proposals')
            written = gr.File(label='Table', interactive=False,
                              elem_id='written')
        picture = gr.Image(label='Where it would be', interactive=False,
                           elem_id='asked', buttons=BUTTONS)
    proposals = gr.Dataframe(
        headers=['image', 'class', 'label', 'probability'], visible=False,
        interactive=False, elem_id='proposals',
        label='Proposals, the least sure ones first')

    def shown(blanks):
        asked = blanks.question()
        if asked is None:
            words, drawn = 'No question is left.', None
        else:
            words = (f'### Is there: {asked.name}?\n\n{Path(asked.path).name}'
                     f'; the model says {100 * asked.probability:.0f}%.')
            drawn = region_of(viewer, blanks, asked)
        return (blanks, blanks.summary(), gr.Row(visible=True), words, drawn,
                gr.Dataframe(blanks.proposals(), visible=True))

    @told
    def propose(table_file, files, ignored, precision,
                progress=gr.Progress()):  # noqa: B008 (Gradio's way)
        if not (table or (table_file and files)):
            raise ValueError('Give a table and its images.')
        return shown(Blanks(
            viewer, table or table_file, images or files,
            [name.strip() for name in ignored.split(',') if name.strip()],
            precision, lambda entries, count: progress.tqdm(
                entries, total=count, desc='Looking at images')))

    def answer(blanks, value):
        if blanks.question() is not None:
            blanks.answer(value)
        return shown(blanks)

    def undo(blanks):
        blanks.undo()
        return shown(blanks)

    def write(blanks, with_proposals):
        path = Path(tempfile.mkdtemp(dir=folder.name), 'filled.csv' if
                    with_proposals else 'answered.csv')
        blanks.write(str(path), with_proposals)
        return str(path)

    outputs = [blanks, summary, asking, question, picture, proposals]
    start.click(propose, [given, files, ignored, precision], outputs)
    for button, value in buttons:
        button.click(partial(answer, value=value), blanks, outputs,
                     show_progress='hidden')
    back.click(undo, blanks, outputs, show_progress='hidden')
    save.click(partial(write, with_proposals=True), blanks, written)
    save_answers.click(partial(write, with_proposals=False), blanks, written)


def region_of(viewer: Viewer, blanks: Blanks, asked):
    """The image of a question, and where its class would be."""
    result, = blanks.predict(asked.path, maps=viewer.has_maps)
    label = next(label for label in result['labels']
                 if label['name'] == asked.name)
    return viewer.region(asked.path, label)
