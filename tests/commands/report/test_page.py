"""`ple-estimator report` and `compare` as a user runs them."""

import contextlib
import io
import json
import os
import re
import struct
import sys

import made_runs
import pytest

html5lib = pytest.importorskip('html5lib', reason='is of the extra `test`')
pytest.importorskip('vl_convert', reason='is of the extra `report`')

from ple_estimator.commands import words as words_lib

_NS = '{http://www.w3.org/1999/xhtml}'


def _two(folder):
  return [made_runs.make(folder, '<b>&"one"', 0.3, 1, num=500),
          made_runs.make(folder, 'two', 0.9, 2, levels=3, num=500)]


@pytest.fixture
def two(tmp_path):
  return _two(tmp_path)


@pytest.fixture(scope='module')
def reported(tmp_path_factory):
  """(folder of the page, what was printed) of the runs of `two`."""
  folder = tmp_path_factory.mktemp('report')
  said = io.StringIO()
  with contextlib.redirect_stdout(said):
    status = words_lib.run('report', _two(folder) + [
        '--out', str(folder / 'out'), '--rounds', '20'])
  assert status == 0
  return folder / 'out', said.getvalue()


def _parsed(path):
  with open(str(path), encoding='utf-8') as f:
    text = f.read()
  # Strict: an element that is not closed or not known here is an error.
  return text, html5lib.HTMLParser(strict=True).parse(text)


def _all(tree, name):
  return tree.findall('.//' + _NS + name)


def test_the_page_is_whole(reported):
  out, said = reported
  assert said.strip() == str(out / 'index.html')
  text, tree = _parsed(out / 'index.html')
  assert len(text) < 5e6
  assert [of.text for of in _all(tree, 'h2')] == [
      'Metrics', 'What differs', 'Paired tests', 'Seesaw', 'Learning curves',
      'Predictions', 'Slices', 'Experts and gates', 'Time and memory',
      'Each run']
  levels = [int(of.tag[-1]) for of in tree.iter()
            if re.match(re.escape(_NS) + r'h\d$', str(of.tag))]
  assert levels[0] == 1 and levels.count(1) == 1
  assert all(b - a <= 1 for a, b in zip(levels, levels[1:]))
  ids = [of.get('id') for of in tree.iter() if of.get('id')]
  assert len(set(ids)) == len(ids)
  for link in _all(tree, 'a'):
    target = link.get('href')
    assert target[1:] in ids if target[0] == '#' else (
        (out / target).exists()), target
  # What a run is called is text, nowhere an element.
  assert not _all(tree, 'b')
  assert '<b>&"one"' in [''.join(of.itertext()) for of in _all(tree, 'h3')]
  assert not re.search(r'(src|href)="(https?:)?//', text)


def test_each_figure_has_words_data_and_a_file(reported):
  out, _ = reported
  _, tree = _parsed(out / 'index.html')
  specs = json.loads([of.text for of in _all(tree, 'script')
                      if of.get('id') == 'specs'][0])
  charts = [of for of in tree.iter() if of.get('data-view')]
  assert [int(of.get('data-view')) for of in charts] == list(range(len(specs)))
  assert all(len(of.get('aria-label')) > 20 and of.get('role') == 'img'
             for of in charts)
  figures = {os.path.splitext(name)[0] for name in os.listdir(
      str(out / 'figures'))}
  assert {'metric-ctr', 'roc-ctr', 'pr-cvr', 'calibration-ctr', 'scores-cvr',
          'slices-age-ctr', 'seesaw', 'learning-loss'} <= figures
  assert len(_all(tree, 'figure')) == len(figures)
  for name in figures:
    drawn = (out / 'figures' / (name + '.svg')).read_text(encoding='utf-8')
    assert drawn.startswith('<svg') and '<path' in drawn, name
  # The page has one legend of runs per figure, and files their own.
  assert 'two' in (out / 'figures' / 'roc-ctr.svg').read_text(encoding='utf-8')
  config = (out / 'configs' / 'two.gin').read_text(encoding='utf-8')
  assert 'PLE.num_levels = 3' in config


@pytest.mark.slow
def test_images_can_be_png_or_none(command, two, tmp_path):
  for kind in ('png', 'none'):
    out = tmp_path / kind
    status, _, error = command('report', two[1], '--out', out, '--rounds', 20,
                               '--images', kind)
    assert status == 0, error
  data = (tmp_path / 'png' / 'figures' / 'roc-ctr.png').read_bytes()
  assert data[:8] == b'\x89PNG\r\n\x1a\n'
  width, height = struct.unpack('>II', data[16:24])
  assert width > 800 and height > 400
  assert not (tmp_path / 'none' / 'figures').exists()


def test_a_run_without_rows_or_config_still_has_a_page(command, tmp_path):
  path = made_runs.make(tmp_path, 'bare', rows=False)
  os.remove(os.path.join(path, 'operative_config-0.gin'))
  status, _, error = command('report', path, '--out', tmp_path / 'out')
  assert status == 0, error
  text, _ = _parsed(tmp_path / 'out' / 'index.html')
  assert 'eval_rows.parquet is missing. To write it: ple-estimator' in text
  assert '--mode=evaluate' in text
  assert 'Without operative_config-' in text


def test_mistakes_are_one_line(command, two, tmp_path, monkeypatch):
  (tmp_path / 'empty').mkdir()
  for args, words in (
      ([tmp_path / 'nope'], 'which is no folder'),
      ([tmp_path / 'empty'], 'which has neither metrics.json'),
      ([two[0], two[0]], 'must be given once per run'),
      ([two[0], '--rounds', 3], '--rounds must be an integer of at least 20'),
      ([two[0], '--baseline', 'x'], '--baseline must be one of the runs')):
    status, said, error = command('report', *args, '--out', tmp_path / 'out')
    assert status == 1 and not said
    assert words in error.splitlines()[-1]
  (tmp_path / 'file').write_text('')
  status, _, error = command('report', two[0], '--rounds', 20, '--out',
                             tmp_path / 'file' / 'x')
  assert status == 1
  assert '--out must be a folder' in error.splitlines()[-1]
  monkeypatch.setitem(sys.modules, 'vl_convert', None)
  status, _, error = command('report', *two, '--out', tmp_path / 'out')
  assert status == 1
  assert error.splitlines() == [
      'ple-estimator report: The report needs vl_convert, which is not '
      "installed: pip install 'ple-estimator[report]'"]


def test_compare_prints_the_same_for_two(command, two, monkeypatch):
  monkeypatch.setitem(sys.modules, 'vl_convert', None)  # it needs none
  status, said, error = command('compare', *two, '--rounds', 20)
  assert status == 0, error
  lines = said.splitlines()
  assert lines[0] == 'METRICS'
  for title in ('WHAT DIFFERS', 'PAIRED TESTS', 'SEESAW', 'LEARNING CURVES',
                'PREDICTIONS', 'SLICES', 'TIME AND MEMORY', 'IN WORDS'):
    assert title in lines
  differs = lines.index('Bindings that differ:')
  assert lines[differs + 3].split() == ['PLE.num_levels', '2', '3']
  assert [line for line in lines if 'DeLong' in line]
  assert 'Compared with <b>&"one" on the same rows:' in ' '.join(said.split())


def test_compare_takes_two_runs(command, two, tmp_path):
  status, _, error = command('compare', two[0], tmp_path / 'nope')
  assert status == 1 and 'which is no folder' in error
  assert len(error.splitlines()) == 1
  assert command('compare', two[0])[0] == 2
