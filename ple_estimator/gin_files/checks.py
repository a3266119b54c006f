"""Refuses what gin lets pass, and tells which bindings override others."""

import collections
import difflib
import os

import gin

from ple_estimator import errors
from ple_estimator.gin_files import places
from ple_estimator.gin_files import statements

_STARTS = ('base.gin', 'taobao.gin')  # of gin/, what all others change


def check_macros(bindings):
  """Refuses macros that nothing reads, and reading what is no macro."""
  bound = {b.arg: b for b in bindings if not b.selector}
  read = {m.name for b in bindings for m in b.values(statements.Macro)}
  for binding in bindings:  # @NAME/macro() is %NAME
    read |= {r.name.rpartition('/')[0]
             for r in binding.values(statements.Reference)
             if r.name.rpartition('/')[2] in ('macro', 'gin.macro')}
  for name, binding in bound.items():
    if name not in read:
      raise errors.UserError(
          '%s: Macros must be read somewhere (%%%s), got unread %s; check the '
          'spelling%s.' % (binding.place(), name, name, _similar(name, read)))
  for binding in {b.key(): b for b in bindings}.values():
    for macro in binding.values(statements.Macro):
      if macro.name not in bound and not _is_constant(macro.name):
        raise errors.UserError(
            '%s: Macros must be bound (%s = ...), got unbound %r in %s%s.' % (
                binding.place(), macro.name, macro, binding,
                _similar(macro.name, bound)))


def _is_constant(name):
  """Whether Python defines the value of %name, as that of %gin.REQUIRED."""
  return gin.config.ParserDelegate().macro(name).selector == 'gin.constant'


def check_used(bindings, roots):
  """Refuses what gin lets pass: bindings of what nothing refers to.

  References in bindings that are overridden count too: an override may leave
  the bindings of what it replaces unused.
  """
  references = {r.name for b in bindings
                for r in b.values(statements.Reference)}
  used = set(roots)
  for reference in references:
    scopes = reference.split('/')
    name = scopes.pop()
    used |= {scope + '/' for scope in scopes} | set(name.split('.')[-2:])
  for binding in bindings:
    scopes = {scope + '/' for scope in binding.scope.split('/') if scope}
    name = '/'.join(filter(None, [binding.scope, binding.selector]))
    if binding.selector and not (scopes <= used and not used.isdisjoint(
        binding.selector.split('.')[-2:])):
      raise errors.UserError(
          '%s: Bindings must be of something that is used, got unused %s; '
          'check the spelling, or bind it where it is meant to be used (@%s)'
          '%s.' % (binding.place(), name, name, _similar(name, references)))


def check_circles(bindings):
  """Refuses bindings that lead back to themselves, as A = %B and B = %A do.

  gin would follow them until Python's stack is full, and what is left of it
  then cannot be trusted by a later run of the process. What a scope binds is
  left out: only where it is in force is it known what leads where.
  """
  leads_to = {}
  for binding in {b.key(): b for b in bindings if not b.scope}.values():
    name = binding.selector.rpartition('.')[2] or '%' + binding.arg
    leads_to.setdefault(name, []).extend(
        (binding, target) for target in _targets(binding))
  done = set()

  def follow(name, path):
    for binding, target in leads_to.get(name, ()):
      errors.check(
          target not in path, '%s: Bindings must not refer to each other in a '
          'circle, got %s.', binding.place(),
          ' -> '.join(path[path.index(target):] + [target])
          if target in path else '')
      if target not in done:
        follow(target, path + [target])
    done.add(name)

  for name in list(leads_to):
    follow(name, [name])


def _targets(binding):
  """Yields what a value needs: '%NAME' of macros, names of built classes."""
  for macro in binding.values(statements.Macro):
    yield '%' + macro.name
  for reference in binding.values(statements.Reference):
    if reference.evaluate and '/' not in reference.name:
      yield reference.name.rpartition('.')[2]


def _similar(name, known):
  found = difflib.get_close_matches(name, sorted(known), 2)
  return ' (did you mean %s?)' % ' or '.join(found) if found else ''


def overrides(bindings):
  """A line per binding that two files have that are no part of each other.

  What a file changes of gin/base.gin, or of a file that it includes, is what it
  is for, and a line of the command line is what the user has just typed: the
  log tells of neither.
  """
  starts = [os.path.join(places.root(), 'gin', name) for name in _STARTS]
  in_force, lines = collections.OrderedDict(), []
  for binding in bindings:
    before, source = in_force.get(binding.key()), binding.source
    in_force[binding.key()] = binding
    if (before and source.name and before.source is not source and
        not source.has(before.source) and before.source.path not in starts and
        repr(binding.value) != repr(before.value)):
      lines.append('%s: %s (was %s, %s)' % (
          binding.place(), binding, str(before).partition(' = ')[2],
          before.place()))
  return lines
