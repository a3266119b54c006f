"""The report as one HTML page, and its figures as files.

The page holds all it needs: style, data, specifications of its figures and the
script that draws them (Vega, Vega-Lite and vega-embed, as vl-convert bundles
them, about 0.9 MB). A figure is drawn when the reader scrolls near it, so that
a page of many runs opens at once; under each stands the same as a table.
"""

import copy
import datetime
import json
import os

from ple_estimator import colors
from ple_estimator import errors
from ple_estimator import files

_HERE = os.path.dirname(os.path.abspath(__file__))
_INK = {'light': ('#1b2430', '#5b6675', '#dfe4ea'),
        'dark': ('#e6ebf2', '#9aa7b8', '#333d4b')}
_SNIPPET = 'window.vegaEmbed = vegaEmbed;'
_FILE_WIDTH = 420  # pixels of a view in a file
_EXTRA = "pip install 'ple-estimator[report]'"


def check_libraries():
  """Raises UserError with the pip command if an optional library is missing."""
  try:
    import jinja2  # noqa: F401
    import vl_convert  # noqa: F401
  except ImportError as error:
    raise errors.UserError(
        'The report needs %s, which is not installed: %s' % (
            error.name, _EXTRA))


def config(scheme):
  """The colors and fonts of figures, a config of Vega-Lite.

  Args:
    scheme: str, 'light' or 'dark'.
  """
  ink, quiet, grid = _INK[scheme]
  font = 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif'
  return {
      'background': 'transparent' if scheme == 'dark' else None, 'font': font,
      'aria': False, 'view': {'stroke': None},
      'range': {'category': colors.PALETTES[scheme]},
      'bar': {'color': colors.PALETTES[scheme][0]}, 'text': {'color': ink},
      'axis': {'labelColor': quiet, 'titleColor': ink, 'gridColor': grid,
               'domainColor': grid, 'tickColor': grid, 'labelFontSize': 11,
               'titleFontSize': 12, 'titleFontWeight': 'normal',
               'labelFlush': False},
      # So that views below one another begin at one place.
      'axisY': {'minExtent': 32},
      'legend': {'labelColor': ink, 'titleColor': ink, 'labelFontSize': 11,
                 'titleFontSize': 11, 'titleFontWeight': 'normal',
                 'orient': 'top', 'labelLimit': 220, 'columns': 4},
      'title': {'color': ink, 'fontSize': 12, 'anchor': 'start'}}


def write(out, facts, sections, of_runs, image):
  """Writes the folder of a report.

  Args:
    out: str, the folder; what is not of a report in it stays.
    facts: facts.Facts.
    sections: list of document.Section, of all runs.
    of_runs: list of contents.OfRun.
    image: str, 'svg' or 'png', the kind of file of each figure, or 'none'.

  Returns:
    str, the path of the page.

  Raises:
    UserError: if the folder cannot be written.
  """
  try:
    os.makedirs(os.path.join(out, 'configs'), exist_ok=True)
    for of in of_runs:
      if of.file:
        files.write_text(os.path.join(out, 'configs', of.file),
                         of.run.config.text)
    if image != 'none':
      os.makedirs(os.path.join(out, 'figures'), exist_ok=True)
      for figure in figures(sections + [of.section for of in of_runs]):
        write_image(os.path.join(
            out, 'figures', '%s.%s' % (figure.name, image)), figure)
    path = os.path.join(out, 'index.html')
    files.write_text(path, html(facts, sections, of_runs, image))
  except OSError as error:
    raise errors.UserError('--out must be a folder that can be written, got '
                           '%r: %s.' % (out, error.strerror))
  return path


def figures(sections):
  """Yields the figures of sections, and of the sections in them."""
  for section in sections:
    yield from section.figures
    yield from figures(section.sections)


def write_image(path, figure):
  """Draws a figure into a file, on a light ground, with its legend.

  Args:
    path: str, ending in .svg or .png.
    figure: document.Figure.
  """
  import vl_convert
  spec = whole(figure)
  if path.endswith('.svg'):
    files.write_text(path, vl_convert.vegalite_to_svg(spec))
  else:
    with open(path, 'wb') as f:
      f.write(vl_convert.vegalite_to_png(spec, scale=2))


def whole(figure):
  """All views of a figure as one specification, for a file.

  Args:
    figure: document.Figure.
  """
  views = []
  for view in figure.views:
    spec = dict(copy.deepcopy(view.spec), width=_FILE_WIDTH)
    views.append(dict(spec, title=view.title) if view.title else spec)
  top = {'$schema': 'https://vega.github.io/schema/vega-lite/v5.json',
         'title': {'text': figure.title, 'fontSize': 14},
         'config': dict(config('light'), background='white'), 'padding': 12}
  if len(views) == 1:
    return dict(views[0], **top)
  return dict(top, concat=views, columns=1 if len(views) < 3 else 2)


def html(facts, sections, of_runs, image):
  """The page as a str; see `write`."""
  import jinja2
  import vl_convert
  environment = jinja2.Environment(
      loader=jinja2.FileSystemLoader(_HERE), autoescape=True,
      trim_blocks=True, lstrip_blocks=True)
  specs = []
  template = environment.get_template('page.html')
  return template.render(
      sections=sections, of_runs=of_runs, facts=facts,
      color=lambda at: at % len(colors.PALETTES['light']), image=image,
      made=datetime.datetime.now().strftime('%Y-%m-%d %H:%M'),
      anchor=anchor, numeric=numeric,
      put=lambda figure, view: _put(specs, figure, view),
      specs=lambda: in_script(specs), palettes=colors.PALETTES,
      configs=in_script({scheme: config(scheme) for scheme in colors.PALETTES}),
      style=_source('page.css'), script=_source('page.js'),
      library=vl_convert.javascript_bundle(_SNIPPET).replace(
          '</script', '<\\/script'))


def _source(name):
  with open(os.path.join(_HERE, name), encoding='utf-8') as f:
    return f.read()


def _put(specs, figure, view):
  """Adds a view to the page's specifications; returns its number."""
  spec = copy.deepcopy(view.spec)
  spec['width'] = 'container'
  if figure.keys:  # the page has a legend of its own
    _without_legend(spec)
  specs.append(spec)
  return len(specs) - 1


def _without_legend(part):
  if isinstance(part, dict):
    for key, value in part.items():
      if key == 'color' and isinstance(value, dict) and 'field' in value:
        value['legend'] = None
      elif key != 'data':
        _without_legend(value)
  elif isinstance(part, list):
    for value in part:
      _without_legend(value)


def in_script(value):
  """JSON that can stand inside of <script>, whatever texts it has."""
  return json.dumps(value, separators=(',', ':')).replace(
      '<', '\\u003c').replace('>', '\\u003e').replace('&', '\\u0026')


def anchor(title):
  """A title as the id of its heading."""
  return ''.join(c if c.isalnum() else '-' for c in title.lower()).strip('-')


def numeric(table):
  """Which columns of a document.Table hold numbers, a list of bool."""
  return [at > 0 and all(map(_is_number, column)) and
          any(cell != '–' for cell in column)
          for at, column in enumerate(zip(*table.rows))]


def _is_number(cell):
  return cell[:1].isdigit() or cell[:1] in '+-–<'
