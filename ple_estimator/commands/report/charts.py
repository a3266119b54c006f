"""Figures as Vega-Lite specifications, which the page and the files share.

Vega-Lite (Satyanarayan et al., IEEE InfoVis 2017) is a grammar of graphics in
JSON: one specification is drawn by a browser, with tooltips, in the page and
by vl-convert, without a browser, as SVG or PNG. Plotly was the other choice:
its script alone is over 4 MB of a page that is to stay below 5, and matplotlib
would draw each figure a second time. The specifications are dicts, since
Altair, which writes them from Python, has other versions on Python 3.7 and
3.11 and needs pandas on the former.

A color is given by name and comes from the page's or file's own palette, so
that it fits a light or a dark page.
"""

import collections

from ple_estimator import colors

View = collections.namedtuple('View', 'title spec')
View.__doc__ = """One drawing.

Attributes:
  title: str; '' if the figure's title says it.
  spec: dict, a Vega-Lite specification without size, colors and fonts.
"""

HEIGHT = 240  # pixels
_DIGITS = 5  # of numbers in the page


def lean(value):
  """A number with few digits, for JSON; None if it is not finite."""
  value = float(value)
  if value != value or value in (float('inf'), float('-inf')):
    return None
  return float('%.*g' % (_DIGITS, value))


def points(columns):
  """Rows of data for a specification.

  Args:
    columns: dict of a field's name to a list of str or number, equally long.

  Returns:
    list of dict.
  """
  names = list(columns)
  return [{name: value if isinstance(value, (str, int)) else lean(value)
           for name, value in zip(names, row)}
          for row in zip(*columns.values())]


def axis(field, title, kind='quantitative', **scale):
  """An encoding of a position."""
  found = {'field': field, 'type': kind, 'title': title}
  if scale:
    found['scale'] = scale
  if kind == 'quantitative':
    found['axis'] = {'tickCount': 6}
  return found


def by(field, names, title=None):
  """An encoding of colors by name, in the order of the page's palette."""
  return {'field': field, 'type': 'nominal', 'title': title,
          'scale': {'domain': list(names)}, 'sort': None}


def tooltip(**titles):
  """What is shown at the pointer: field to title."""
  return [{'field': field, 'title': title} if field in ('name', 'of') else
          {'field': field, 'title': title, 'type': 'quantitative',
           'format': '.5~g'} for field, title in titles.items()]


def lines(data, x, y, color, dash=None, diagonal=False, marks=True, tips=None,
          order=None):
  """Lines by color, with a point where each value is.

  Args:
    data: list of dict.
    x: dict, from `axis`.
    y: dict.
    color: dict, from `by`.
    dash: dict, the same of the dashes; None draws all lines through.
    diagonal: bool, whether the line x = y is drawn from 0 to 1.
    marks: bool, whether points are drawn.
    tips: list of dict, from `tooltip`.
    order: str, the field by which points are joined; None is that of x.

  Returns:
    dict, the specification.
  """
  encoding = {'x': x, 'y': y, 'color': color}
  if dash:
    encoding['strokeDash'] = dash
  if tips:
    encoding['tooltip'] = tips
  if order:
    encoding['order'] = {'field': order, 'type': 'quantitative'}
  mark = {'type': 'line', 'strokeWidth': 1.75}
  if marks:
    mark['point'] = {'size': 26, 'filled': True}
  layers = [{'mark': mark, 'encoding': encoding}]
  if diagonal:
    ends = [diagonal, 1] if diagonal is not True else [0, 1]
    layers.insert(0, {
        'data': {'values': [{'x': end, 'y': end} for end in ends]},
        'mark': {'type': 'line', 'strokeDash': [4, 4], 'strokeWidth': 1,
                 'color': 'gray'},
        'encoding': {'x': dict(x, field='x'), 'y': dict(y, field='y')}})
  return {'data': {'values': data}, 'layer': layers, 'height': HEIGHT}


def steps(data, x, y, color, tips=None):
  """Histograms as outlines, which several of can lie on one another."""
  encoding = {'x': x, 'y': y, 'color': color}
  if tips:
    encoding['tooltip'] = tips
  return {'data': {'values': data}, 'height': HEIGHT // 2, 'mark': {
      'type': 'line', 'interpolate': 'step', 'strokeWidth': 1.5},
          'encoding': encoding}


def intervals(data, x_title, names, zero=None, sort=None, tips=None):
  """A dot and its interval per row, which is named at the left.

  Args:
    data: list of dict with 'of' (the row), 'name' (the color), 'value', 'low'
      and 'high'.
    x_title: str.
    names: list of str, those of the colors.
    zero: float, where a line is drawn; None draws none.
    sort: list of str, the rows in their order.
    tips: list of dict, from `tooltip`.
  """
  y = {'field': 'of', 'type': 'nominal', 'title': None,
       'sort': sort or None, 'axis': {'labelLimit': 130}}
  common = {'y': y, 'yOffset': {'field': 'name', 'sort': list(names)},
            'color': by('name', names)}
  several = len({row['of'] for row in data}) < len(data)
  if not several:
    common.pop('yOffset')
  x = dict(axis('', x_title, zero=False))
  layers = [
      {'mark': {'type': 'rule', 'strokeWidth': 2}, 'encoding': dict(
          common, x=dict(x, field='low'), x2={'field': 'high'})},
      {'mark': {'type': 'point', 'filled': True, 'size': 50, 'opacity': 1},
       'encoding': dict(common, x=dict(x, field='value'), tooltip=tips or [])}]
  if zero is not None:
    layers.insert(0, {
        'data': {'values': [{'zero': zero}]},
        'mark': {'type': 'rule', 'strokeDash': [4, 4], 'color': 'gray'},
        'encoding': {'x': {'field': 'zero', 'type': 'quantitative'}}})
  rows = len({row['of'] for row in data})
  per_row = max(20, 9 * (len({row['name'] for row in data}) if several else 1))
  return {'data': {'values': data}, 'layer': layers, 'height': max(
      60, rows * per_row)}


def heat(data, x_title, title, names, most):
  """Shares as colors: steps to the right, names downwards.

  Args:
    data: list of dict with 'step', 'of' and 'share'.
    x_title: str.
    title: str, of the colors.
    names: list of str, the rows in their order.
    most: float, the share of the last color.
  """
  return {'data': {'values': data}, 'height': max(50, 22 * len(names)),
          'mark': {'type': 'rect'}, 'encoding': {
              'x': {'field': 'step', 'type': 'ordinal', 'title': x_title,
                    'axis': {'labelAngle': 0, 'labelOverlap': True}},
              'y': {'field': 'of', 'type': 'nominal', 'title': None,
                    'sort': list(names)},
              'color': {'field': 'share', 'type': 'quantitative',
                        'title': title, 'scale': {
                            'scheme': colors.SCALE, 'domain': [0, most]},
                        'legend': {'format': '.0%', 'direction': 'horizontal',
                                   'gradientThickness': 8}},
              'tooltip': [{'field': 'of', 'title': 'expert'},
                          {'field': 'step', 'title': 'step'},
                          {'field': 'share', 'title': title,
                           'format': '.1%'}]}}


def bars(data, x_title, names, form='.3~g'):
  """Horizontal bars, named at the left; 'of' and 'value' of each row."""
  return {'data': {'values': data}, 'height': 18 * len(names), 'mark': {
      'type': 'bar'}, 'encoding': {
          'y': {'field': 'of', 'type': 'nominal', 'title': None,
                'sort': list(names), 'axis': {'labelLimit': 150}},
          'x': axis('value', x_title),
          'tooltip': [{'field': 'of', 'title': 'of'},
                      {'field': 'value', 'title': x_title, 'format': form}]}}


def scatter(data, x, y, names):
  """A point per run, named beside it, with intervals in both directions.

  Args:
    data: list of dict with 'name', 'x', 'x_low', 'x_high', and so for y. Points
      that lie apart from all others are named beside them.
    x: dict, from `axis`.
    y: dict.
    names: list of str, those of the colors.

  Returns:
    dict, the specification; with lines where x and y are 0.
  """
  color = by('name', names)
  apart = _apart(data)
  layers = [{'data': {'values': [{'zero': 0}]}, 'mark': {
      'type': 'rule', 'strokeDash': [4, 4], 'color': 'gray'}, 'encoding': {
          way: {'field': 'zero', 'type': 'quantitative'}}}
            for way in ('x', 'y')]
  for way, other, at in (('x', y, 'y'), ('y', x, 'x')):
    of = {'x': x, 'y': y}[way]
    if all(point[way + '_low'] is None for point in data):
      continue  # Vega warns of a layer without a number
    layers.append({'mark': {'type': 'rule', 'opacity': 0.45}, 'encoding': {
        way: dict(of, field=way + '_low'), way + '2': {'field': way + '_high'},
        at: other, 'color': color}})
  layers += [
      {'mark': {'type': 'point', 'filled': True, 'size': 90, 'opacity': 1},
       'encoding': {'x': x, 'y': y, 'color': color, 'tooltip': tooltip(
           name='run', x=x['title'], y=y['title'])}}]
  ends = [of['x'] for of in data]
  for align, dx in (('left', 5), ('right', -5)):  # of the point, inwards
    named = [of for of in apart if align == (
        'left' if 2 * of['x'] <= min(ends) + max(ends) else 'right')]
    if named:
      layers.append({
          'data': {'values': named},
          'mark': {'type': 'text', 'dy': -11, 'dx': dx, 'align': align,
                   'fontSize': 11},
          'encoding': {'x': x, 'y': y, 'text': {'field': 'name'}}})
  return {'data': {'values': data}, 'layer': layers, 'height': 340}


def _apart(data, y_share=0.06):
  """The points beside which a name fits, by shares of what the axes span."""
  def span(way):
    ends = [of[way + end] for of in data for end in ('', '_low', '_high')
            if of[way + end] is not None]
    return max(1e-12, max(ends) - min(ends)) if ends else 1e-12

  x_span, y_span = span('x'), span('y')

  def near(a, b):
    # A letter takes about 7 of the 300 pixels of a narrow page.
    x_share = 0.05 + 0.023 * max(len(a['name']), len(b['name']))
    return (abs(a['x'] - b['x']) < x_share * x_span and
            abs(a['y'] - b['y']) < y_share * y_span)

  return [of for of in data if not any(
      near(of, other) for other in data if other is not of)]
