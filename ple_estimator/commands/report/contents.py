"""The sections of a report, in their order."""

import collections
import re
import sys

from ple_estimator.commands.report import configs
from ple_estimator.commands.report import costs
from ple_estimator.commands.report import document
from ple_estimator.commands.report import importances
from ple_estimator.commands.report import inside
from ple_estimator.commands.report import learning
from ple_estimator.commands.report import overview
from ple_estimator.commands.report import quality
from ple_estimator.commands.report import summaries
from ple_estimator.commands.report import tables

OfRun = collections.namedtuple('OfRun', 'run section file')
OfRun.__doc__ = """The part of a report that is of one run.

Attributes:
  run: runs.Run.
  section: document.Section.
  file: str, the name of the copy of its config; None without one.
"""


def sections(facts):
  """What is of all runs together, a list of document.Section.

  Args:
    facts: facts.Facts.
  """
  found = [overview.metrics(facts),
           overview.differences(facts, configs.differences(facts.groups)),
           overview.seeds(facts), overview.tests(facts),
           overview.seesaw(facts), learning.section(facts),
           quality.section(facts), quality.slices(facts),
           inside.experts(facts), costs.section(facts)]
  return [section for section in found if section]


def of_runs(facts, say=None):
  """What is of each run.

  Args:
    facts: facts.Facts.
    say: function of a str, called before each run; None says nothing.

  Returns:
    list of OfRun.
  """
  found, files = [], set()
  for run in facts.runs:
    if say:
      say('reading the checkpoint of %s' % run.name)
    prefix = file_name(run.name)
    while prefix in files:
      prefix += '_'
    files.add(prefix)
    section = document.Section(
        run.name, [summaries.of(facts, run)], [],
        inside.gate_figures(run, prefix))
    if run.importances:
      section = section._replace(figures=section.figures + [
          importances.figure(run.importances, prefix)])
    profile = costs.profile(run.path)
    if profile:
      section = section._replace(figures=section.figures + [
          costs.profile_figure(profile, prefix)])
    embeddings = tables.section(tables.read(run.path), run.name, prefix)
    if embeddings:
      section = section._replace(sections=[embeddings])
    found.append(OfRun(run, section, prefix + '.gin' if run.config else None))
  return found


def file_name(name):
  """A run's name as the name of a file."""
  return re.sub(r'[^A-Za-z0-9_.-]+', '-', name).strip('.-') or 'run'


def say(text):
  """Says on standard error what is being done."""
  sys.stderr.write('ple-estimator report: %s\n' % text)
