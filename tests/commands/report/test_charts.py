"""Specifications of figures, where code decides what they show."""

from ple_estimator import colors
from ple_estimator.commands.report import charts
from ple_estimator.commands.report import document
from ple_estimator.commands.report import page


def _scatter(intervals=True, **points):
  data = [{'name': name, 'x': x, 'y': y} for name, (x, y) in points.items()]
  for of in data:
    of.update({way + end: of[way] if intervals else None
               for way in 'xy' for end in ('_low', '_high')})
  return charts.scatter(data, charts.axis('x', 'x'), charts.axis('y', 'y'),
                        list(points))


def test_names_beside_points_run_inwards():
  layers = [of for of in _scatter(left=(0, 0), right=(9, 9), a=(5, 4), b=(
      5.1, 4.1))['layer'] if of['mark']['type'] == 'text']
  assert {of['mark']['align']: [point['name'] for point in of['data'][
      'values']] for of in layers} == {'left': ['left'], 'right': ['right']}


def _named(spec):
  return {point['name'] for of in spec['layer'] if of['mark']['type'] == 'text'
          for point in of['data']['values']}


def test_points_are_named_where_a_name_fits():
  # In a tenth of the width fits no name of 12 letters, one of 2 does.
  long = 'c' * 12
  assert _named(_scatter(aa=(0, 0), bb=(0.1, 0), **{long: (1, 1)})) == {
      'aa', 'bb', long}
  assert _named(_scatter(aa=(0, 0), bb=(0.9, 0), **{long: (1, 0)})) == {'aa'}


def test_points_without_intervals_have_no_lines_through_them():
  def lines(**options):
    return [of for of in _scatter(a=(1, 2), b=(3, 4), **options)['layer']
            if of['mark']['type'] == 'rule' and 'data' not in of]

  assert len(lines()) == 2 and not lines(intervals=False)


def test_rows_of_intervals_are_as_high_as_their_dots_need():
  def height(*pairs):
    return charts.intervals(
        [{'of': of, 'name': name, 'value': 0, 'low': 0, 'high': 0}
         for of, name in pairs], '', ['run %d' % i for i in range(9)])['height']

  rows = ['a', 'b', 'c', 'd']
  assert height(*[(of, 'run 1') for of in rows]) == 80
  assert height(*[(of, 'run %d' % (i % 2)) for i, of in enumerate(rows)]) == 80
  # Of nine runs, three have these rows.
  assert height(*[(of, 'run %d' % i) for of in rows for i in range(3)]) == 108


def test_text_in_a_figure_can_be_read_on_its_ground():
  for scheme, ground in (('light', '#ffffff'), ('dark', '#12171e')):
    ink = page.config(scheme)['text']['color']
    assert abs(sum(colors.rgb(ink)) - sum(colors.rgb(ground))) > 500


def test_large_numbers_have_all_their_digits():
  assert [document.general(of) for of in (0.01234, 5.943, 1912.4, 12879.6)
          ] == ['0.01234', '5.943', '1912', '12,880']
