"""The manifests as a cluster would take them, the image, and launch.py."""

import ast
import copy
import fnmatch
import glob
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time

import conftest
from experiments import FEW_COLUMNS
from experiments import SMALL
import jsonschema
from packaging import requirements
import pytest
import setuptools
import yaml

FOLDER = os.path.join(conftest.ROOT, 'distribute_k8s')
CRD = os.path.join(
    conftest.ROOT, '..', 'shared', 'k8s', 'kubeflow.org_tfjobs.yaml')
JOBS = ['distribute_k8s_BF16.yaml', 'distribute_k8s_FP32.yaml']
OTHERS = ['network_policy.yaml', 'pvc.yaml', 'workspace.yaml']
each_job = pytest.mark.parametrize('name', JOBS)

launch = runpy.run_path(os.path.join(FOLDER, 'launch.py'), run_name='launch')


def text_of(name):
  with open(os.path.join(FOLDER, name)) as f:
    return f.read()


def documents(name):
  loaded = list(yaml.safe_load_all(text_of(name)))
  return json.loads(json.dumps(loaded))  # aliases as copies


# --------------------------------------------------------------- the manifests


def closed(schema):
  """A schema of a CRD that refuses unknown keys, as `kubectl apply` does."""
  if isinstance(schema, list):
    return [closed(part) for part in schema]
  if not isinstance(schema, dict):
    return schema
  found = {key: closed(part) for key, part in schema.items()}
  if 'properties' in schema and 'additionalProperties' not in schema:
    found['additionalProperties'] = False
  return found


@pytest.fixture(scope='module')
def unknown():
  """A function of a TFJob to what its schema says against it."""
  if os.path.exists(CRD):
    with open(CRD) as f:
      crd = yaml.load(f, getattr(yaml, 'CSafeLoader', yaml.SafeLoader))
    validator = jsonschema.Draft4Validator(closed(
        crd['spec']['versions'][0]['schema']['openAPIV3Schema']))
    return lambda job: [e.message for e in validator.iter_errors(job)]
  models = pytest.importorskip(
      'kubeflow.training.models',
      reason='there is neither the CRD nor kubeflow-training')
  import kubernetes.client
  for model in dir(models):
    if model[0].isupper():
      setattr(kubernetes.client.models, model, getattr(models, model))
  client = kubernetes.client.ApiClient()

  def check(job):
    response = type('Response', (), {'data': json.dumps(job)})()
    try:
      made = client.deserialize(response, 'KubeflowOrgV1TFJob')
    except ValueError as error:
      return [str(error)]
    # A key that no model has is lost on the way.
    return [] if client.sanitize_for_serialization(made) == job else [
        'a key is unknown']
  return check


def refused_by_operator(job):
  """What the webhook of the training operator 1.9 refuses, and TensorFlow."""
  found = []
  # Also the name of the services, which may not begin with a digit.
  if not re.match(r'^[a-z]([-a-z0-9]{0,61}[a-z0-9])?$',
                  job['metadata']['name']):
    found.append('metadata.name %(name)s' % job['metadata'])
  policy = job['spec'].get('runPolicy', {}).get('cleanPodPolicy')
  if policy not in ('None', 'Running', 'All'):  # the default has changed
    found.append('cleanPodPolicy %s' % policy)
  specs = job['spec']['tfReplicaSpecs']
  if set(specs) - {'Chief', 'Master', 'Worker', 'PS', 'Evaluator'}:
    found.append('replica types %s' % sorted(specs))
  if sum(specs[kind]['replicas'] for kind in ('Chief', 'Master')
         if kind in specs) != 1:
    found.append('number of chiefs')
  for kind, spec in specs.items():
    if spec.get('restartPolicy', 'Never') not in (
        'Always', 'OnFailure', 'ExitCode'):  # Never would end the job
      found.append('restartPolicy of %s' % kind)
    containers = spec['template']['spec'].get('containers', [])
    if [c.get('name') for c in containers].count('tensorflow') != 1:
      found.append('container tensorflow of %s' % kind)
    if not all(c.get('image') for c in containers):
      found.append('image of %s' % kind)
  return found


def changed(job, path, value):
  """A copy of a job with one value set; value None removes it."""
  job = copy.deepcopy(job)
  at = job['spec']
  for key in path[:-1]:
    at = at[key]
  if value is None:
    del at[path[-1]]
  else:
    at[path[-1]] = value
  return job


@each_job
def test_job_is_accepted(name, unknown):
  job, = documents(name)
  assert (job['apiVersion'], job['kind']) == ('kubeflow.org/v1', 'TFJob')
  assert unknown(job) == []
  assert refused_by_operator(job) == []


CHIEF = ('tfReplicaSpecs', 'Chief')
CONTAINER = CHIEF + ('template', 'spec', 'containers', 0)


@pytest.mark.parametrize('path, value', [
    (('runPolicy', 'cleanPodPolicyy'), 'Running'),
    (CHIEF + ('restartPolicyy',), 'ExitCode'),
    (CHIEF + ('replicas',), 'two'),
    (CHIEF + ('template', 'spec', 'volume'), []),
    (CONTAINER + ('comand',), ['x']),
    (CONTAINER + ('securityContext', 'readOnlyRootFileSystem'), True),
])
def test_schema_refuses_what_is_misspelt(unknown, path, value):
  job, = documents(JOBS[0])
  assert unknown(changed(job, path, value))


@pytest.mark.parametrize('path, value, said', [
    (('runPolicy', 'cleanPodPolicy'), 'Runing', 'cleanPodPolicy Runing'),
    (('runPolicy', 'cleanPodPolicy'), None, 'cleanPodPolicy None'),
    (CHIEF + ('replicas',), 2, 'number of chiefs'),
    (CHIEF + ('restartPolicy',), None, 'restartPolicy of Chief'),
    (CHIEF + ('restartPolicy',), 'Exitcode', 'restartPolicy of Chief'),
    (('tfReplicaSpecs', 'Cheif'), {'replicas': 1, 'template': {'spec': {}}},
     'replica types'),
    (CONTAINER + ('name',), 'trainer', 'container tensorflow of Chief'),
    (CONTAINER + ('image',), None, 'image of Chief'),
])
def test_operator_refuses(path, value, said):
  job, = documents(JOBS[0])
  assert said in ', '.join(refused_by_operator(changed(job, path, value)))


def test_operator_refuses_a_chief_beside_a_master_and_a_bad_name():
  job, = documents(JOBS[0])
  specs = job['spec']['tfReplicaSpecs']
  specs['Master'] = specs['Chief']
  job['metadata']['name'] = '8-ple_bf16'
  assert refused_by_operator(job) == [
      'metadata.name 8-ple_bf16', 'number of chiefs']


def as_pod(template):
  return {'apiVersion': 'v1', 'kind': 'Pod', 'spec': template['spec'],
          'metadata': dict(template['metadata'], name='x')}


@pytest.fixture(scope='module')
def validate():
  """Raises an error unless a document is one of Kubernetes 1.29, strictly."""
  kubernetes_validate = pytest.importorskip(
      'kubernetes_validate',
      reason='kubernetes-validate needs Python 3.9 or later')
  return lambda document: kubernetes_validate.validate(
      document, '1.29', strict=True)


@each_job
def test_pods_are_accepted(name, validate):
  job, = documents(name)
  specs = job['spec']['tfReplicaSpecs']
  assert set(specs) == {'Chief', 'Worker', 'PS', 'Evaluator'}
  for spec in specs.values():
    validate(as_pod(spec['template']))


@pytest.mark.parametrize('name', OTHERS)
def test_other_manifests_are_accepted(name, validate):
  for document in documents(name):
    validate(document)


def test_a_misspelt_key_of_a_pod_or_policy_is_refused(validate):
  job, = documents(JOBS[0])
  pod = as_pod(changed(job, CONTAINER + ('comand',), ['x'])['spec'][
      'tfReplicaSpecs']['Chief']['template'])
  policy = documents('network_policy.yaml')[0]
  policy['spec']['ingres'] = policy['spec'].pop('ingress')
  claim = documents('pvc.yaml')[0]
  claim['spec']['accessMode'] = claim['spec'].pop('accessModes')
  for document in (pod, policy, claim):
    with pytest.raises(Exception, match='Additional properties'):
      validate(document)


def test_jobs_differ_only_in_the_experiment():
  bf16, fp32 = map(text_of, JOBS)
  bf16 = bf16.replace('gin/bf16.gin', 'gin/base.gin').replace('bf16', 'fp32')
  assert bf16.replace('_FP32', '') == fp32.replace('_BF16', '')


def pods():
  """Yields (name, pod) of every pod that the manifests make."""
  for name in JOBS:
    job, = documents(name)
    for kind, spec in job['spec']['tfReplicaSpecs'].items():
      yield '%s %s' % (job['metadata']['name'], kind), as_pod(spec['template'])
  yield 'workspace', documents('workspace.yaml')[0]


def test_pods_meet_the_restricted_standard_and_more():
  _, stages = dockerfile()
  for name, pod in pods():
    spec, (container,) = pod['spec'], pod['spec']['containers']
    assert spec['automountServiceAccountToken'] is False, name
    security = spec['securityContext']
    assert security['runAsNonRoot'] is True, name
    assert '%(runAsUser)d:%(runAsGroup)d' % security == stages[-1]['USER'], name
    assert security['seccompProfile'] == {'type': 'RuntimeDefault'}, name
    assert container['securityContext'] == {
        'allowPrivilegeEscalation': False, 'readOnlyRootFilesystem': True,
        'capabilities': {'drop': ['ALL']}}, name
    kinds = [set(volume) - {'name'} for volume in spec['volumes']]
    assert all(k <= {'persistentVolumeClaim', 'emptyDir'} for k in kinds), name
    assert not {'hostNetwork', 'hostPID', 'hostIPC'} & set(spec), name
    writable = {m['name'] for m in container['volumeMounts']
                if m['mountPath'] == '/tmp'}
    assert writable == {v['name'] for v in spec['volumes']
                        if 'emptyDir' in v}, name
    memory = [container['resources'][kind]['memory']
              for kind in ('requests', 'limits')]
    assert memory[0] == memory[1], name
    assert pod['metadata']['annotations'][
        'sidecar.istio.io/inject'] == 'false', name


def test_volumes_are_claimed_for_many_nodes():
  claims = {claim['metadata']['name']: claim['spec']['accessModes']
            for claim in documents('pvc.yaml')}
  for name, pod in pods():
    for volume in pod['spec']['volumes']:
      if 'persistentVolumeClaim' in volume:
        assert claims[volume['persistentVolumeClaim']['claimName']] == [
            'ReadWriteMany'], name


def selects(selector, pod):
  """Whether a podSelector of labels takes a pod."""
  assert set(selector) == {'matchLabels'}
  return selector['matchLabels'].items() <= pod['metadata']['labels'].items()


def may_reach(policies, source, target, port):
  """Whether a pod may open a connection to another, by Kubernetes's rules."""
  def allows(pod, side, other, kind):
    own = [p['spec'] for p in policies if selects(p['spec']['podSelector'], pod)
           and kind in p['spec']['policyTypes']]
    return not own or any(
        'namespaceSelector' not in peer and selects(peer['podSelector'], other)
        for spec in own for rule in spec[kind.lower()] for peer in rule[side]
        if port in [p['port'] for p in rule['ports']])
  return (allows(source, 'to', target, 'Egress') and
          allows(target, 'from', source, 'Ingress'))


def test_only_pods_of_a_job_reach_its_port():
  policies = documents('network_policy.yaml')
  named = list(pods()) + [
      ('stranger', {'metadata': {'labels': {'app': 'x'}}})]
  port = 2222
  for name, pod in named[:-2]:
    assert pod['spec']['containers'][0]['ports'] == [
        {'name': 'tfjob-port', 'containerPort': port}]
    for other_name, other in named:
      same = other_name.split()[0] == name.split()[0]
      assert may_reach(policies, other, pod, port) == same, other_name
      assert may_reach(policies, pod, other, port) == same, other_name
      assert not may_reach(policies, other, pod, 22)


def test_jobs_resolve_names_and_reach_nothing_else():
  for policy in documents('network_policy.yaml'):
    outside = [rule for rule in policy['spec']['egress']
               if 'namespaceSelector' in rule['to'][0]]
    assert len(outside) == 1 and len(policy['spec']['egress']) == 2
    assert sorted((p['protocol'], p['port']) for p in outside[0]['ports']) == [
        ('TCP', 53), ('UDP', 53)]


# ------------------------------------------------------------------- the image


def dockerfile():
  """Returns (ARGs before the first FROM, stages).

  A stage is a dict of the last USER, WORKDIR, ENTRYPOINT and CMD, of ENV as a
  dict, of COPY and RUN as lists, and of FROM with ARGs put in.
  """
  text = re.sub(r'(?m)^\s*#.*\n', '', text_of('Dockerfile'))
  args, stages = {}, []
  for line in re.sub(r'\\\n\s*', '', text).splitlines():
    word, _, rest = line.partition(' ')
    if word == 'ARG':
      args.update([rest.split('=', 1)])
    elif word == 'FROM':
      image = re.sub(r'\$\{(\w+)\}', lambda m: args[m.group(1)], rest)
      stages.append({'FROM': image, 'ENV': {}, 'COPY': [], 'RUN': []})
    elif word == 'ENV':
      stages[-1]['ENV'].update(pair.split('=', 1) for pair in rest.split())
    elif word in ('COPY', 'RUN'):
      stages[-1][word].append(rest)
    elif word in ('ENTRYPOINT', 'CMD'):
      stages[-1][word] = json.loads(rest)
    elif word:
      assert word in ('USER', 'WORKDIR'), word
      stages[-1][word] = rest
  return args, stages


def test_image_is_pinned_and_not_of_root():
  _, stages = dockerfile()
  comments = re.findall(r'BASE_IMAGE=(\S+)', text_of('Dockerfile'))
  assert comments[:2] == ['python:3.11.9-slim-bookworm',
                          'python:3.7.17-slim-bookworm']
  for image in [stage['FROM'].split(' AS ')[0] for stage in stages] + comments:
    assert re.match(r'^python:\d+\.\d+\.\d+-slim-bookworm$', image), image
  images = {pod['spec']['containers'][0]['image'] for _, pod in pods()}
  assert len(images) == 1 and re.search(r':\d+\.\d+\.\d+$', images.pop())
  assert re.match(r'^[1-9]\d+:[1-9]\d+$', stages[-1]['USER'])


def test_image_copies_what_is_there():
  _, stages = dockerfile()
  kept = [line[1:] for line in text_of('Dockerfile.dockerignore').splitlines()
          if line.startswith('!')]
  copied = []
  for stage in stages:
    for rest in stage['COPY']:
      if not rest.startswith('--from='):
        copied += rest.split()[:-1]
  for source in copied:
    assert glob.glob(os.path.join(conftest.ROOT, source)), source
    assert source.split('/')[0] in kept, source
  assert {'ple_estimator', 'gin', 'tools', 'distribute_k8s/launch.py'} <= set(
      copied)
  # Nothing but what the first stage has made.
  assert all(rest.startswith('--from=build ') for rest in stages[-1]['COPY'])


def test_image_preloads_jemalloc_as_the_model_zoo():
  environ = dockerfile()[1][-1]['ENV']
  assert os.path.basename(environ['LD_PRELOAD']) == 'libjemalloc.so.2'
  assert fnmatch.fnmatch(environ['LD_PRELOAD'], launch['LIBRARIES'][0])
  assert environ['MALLOC_CONF'] == (
      'background_thread:true,metadata_thp:auto,dirty_decay_ms:20000,'
      'muzzy_decay_ms:20000')


def required(version, monkeypatch):
  """Requirements of setup.py on Linux for a Python, by lower-case name."""
  found = {}
  monkeypatch.chdir(conftest.ROOT)
  monkeypatch.setattr(setuptools, 'setup', found.update)
  runpy.run_path('setup.py')
  machine = {'python_version': version, 'sys_platform': 'linux',
             'platform_machine': 'x86_64'}
  wanted = [requirements.Requirement(line)
            for line in found['install_requires']]
  return {one.name.lower(): one for one in wanted
          if one.marker is None or one.marker.evaluate(machine)}


@pytest.mark.parametrize('version, from_base', [
    ('3.7', set()), ('3.8', {'numpy'}), ('3.11', set())])
def test_image_has_what_setup_requires(version, from_base, monkeypatch):
  text = text_of('requirements-%s.txt' % version).replace('\\\n', '')
  lines = [line for line in text.split('\n')
           if line and not line.startswith('#')]
  pins = {}
  for line in lines:  # each is pinned, to the byte
    pin, hashed = line.split()
    name, number = pin.split('==')
    assert re.match(r'--hash=sha256:[0-9a-f]{64}$', hashed), line
    pins[name.lower()] = number
  wanted = required(version, monkeypatch)
  assert set(wanted) - set(pins) == from_base
  for name in set(wanted) - from_base:
    assert wanted[name].specifier.contains(pins[name]), name


@pytest.mark.slow
def test_image_has_its_kernels_without_compiler_or_writable_folders(tmp_path):
  build = [sys.executable, '-m', 'ple_estimator.engine.native']
  assert 'python -m ple_estimator.engine.native' in ' '.join(
      dockerfile()[1][0]['RUN'])
  environ = dict(os.environ, PYTHONPATH=conftest.ROOT, TF_CPP_MIN_LOG_LEVEL='1')
  done = subprocess.run(build, env=environ, cwd=conftest.ROOT,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  if done.returncode:
    pytest.skip('the kernels cannot be built here: %s' % done.stdout[-200:])
  made = glob.glob(os.path.join(sys.prefix, 'share', 'ple_estimator', '*.so'))
  if not made:
    pytest.skip('%s cannot be written to' % sys.prefix)
  # A folder that cannot be made, not even by root, and nothing to compile with.
  (tmp_path / 'file').write_text('')
  done = subprocess.run(
      build, cwd=conftest.ROOT, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, universal_newlines=True,
      env=dict(environ, PATH=str(tmp_path),
               XDG_CACHE_HOME=str(tmp_path / 'file')))
  assert done.returncode == 0 and 'Building' not in done.stdout, done.stdout


# ------------------------------------------------------------------ launch.py


# In place of the trainer: writes down what it was started with.
STAND_IN = r'''
import ctypes, json, os, signal, sys, time
def decay():
  try:
    mallctl = ctypes.CDLL(None).mallctl
  except AttributeError:
    return None
  value, size = ctypes.c_ssize_t(), ctypes.c_size_t(8)
  mallctl(b'opt.dirty_decay_ms', ctypes.byref(value), ctypes.byref(size),
          None, ctypes.c_size_t(0))
  return value.value
with open(os.environ['REPORT'] + '.partial', 'w') as f:
  json.dump({'argv': sys.argv[1:], 'environ': dict(os.environ),
             'pid': os.getpid(), 'maps': open('/proc/self/maps').read(),
             'decay': decay()}, f)
os.rename(os.environ['REPORT'] + '.partial', os.environ['REPORT'])
if 'wait' in sys.argv:
  time.sleep(60)
if 'catch' in sys.argv:
  signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
  os.rename(os.environ['REPORT'], os.environ['REPORT'] + '.ready')
  time.sleep(60)
sys.exit(7 if 'fail' in sys.argv else 0)
'''


@pytest.fixture
def start(tmp_path):
  """Starts launch.py over the stand-in; (process, path of its report)."""
  package = tmp_path / 'ple_estimator'
  package.mkdir()
  (package / '__init__.py').write_text('')
  (package / 'run.py').write_text(STAND_IN)
  processes = []

  def run(*args, **environ):
    report = str(tmp_path / ('report-%d' % len(processes)))
    process = subprocess.Popen(
        [sys.executable, os.path.join(FOLDER, 'launch.py')] + list(args),
        cwd=str(tmp_path), stderr=subprocess.PIPE, universal_newlines=True,
        env=dict({'PATH': os.environ['PATH'], 'REPORT': report}, **environ))
    processes.append(process)
    return process, report
  yield run
  for process in processes:
    if process.poll() is None:
      process.kill()
    process.communicate()


def report_of(process, report):
  """What the trainer wrote down; it has exited with status 0."""
  _, said = process.communicate(timeout=60)
  assert process.returncode == 0, said
  with open(report) as f:
    return dict(json.load(f), said=said)


def jemalloc():
  """The path of the library here, or None."""
  found = [path for pattern in launch['LIBRARIES'] for path in
           glob.glob(pattern)]
  return found[0] if found else None


needs_jemalloc = pytest.mark.skipif(
    not jemalloc(), reason='libjemalloc2 is not installed')


@needs_jemalloc
@pytest.mark.parametrize('strategy, decay', [
    ('xmin', 0), ('xmid', 10000), ('244', 10000), ('min', 0), ('mid', 10000),
    ('max', 240000), ('251', 60000)])
def test_strategies_are_in_force_in_the_trainer(start, strategy, decay):
  got = report_of(*start(MEM_USAGE_STRATEGY=strategy, LD_PRELOAD='',
                         MALLOC_CONF='dirty_decay_ms:1'))
  assert jemalloc() in got['environ']['LD_PRELOAD']
  assert os.path.realpath(jemalloc()) in got['maps']
  assert got['decay'] == decay  # as jemalloc itself says; 10000 is its default
  assert got['environ'].get('MALLOC_CONF', '') == launch['STRATEGIES'][strategy]


def test_strategies_are_those_of_the_model_zoo():
  assert {name: conf and re.findall(r'\d+', conf)
          for name, conf in launch['STRATEGIES'].items()} == {
              'xmin': ['0', '0'], 'xmid': '', '244': '', 'min': ['0', '0'],
              'mid': ['10000'] * 2, 'max': ['240000'] * 2,
              '251': ['60000'] * 2, 'close': None}


@needs_jemalloc
def test_close_takes_jemalloc_out_and_leaves_the_rest(start):
  other = os.path.realpath('/lib/x86_64-linux-gnu/libutil.so.1')
  preload = jemalloc() + (':' + other if os.path.exists(other) else '')
  got = report_of(*start(MEM_USAGE_STRATEGY='close', LD_PRELOAD=preload,
                         MALLOC_CONF='dirty_decay_ms:1'))
  assert 'jemalloc' not in got['maps'] and got['decay'] is None
  assert 'MALLOC_CONF' not in got['environ']
  assert got['environ'].get('LD_PRELOAD', '') == preload.partition(':')[2]


@needs_jemalloc
def test_without_a_strategy_the_image_decides(start):
  environ = dockerfile()[1][-1]['ENV']
  got = report_of(*start(LD_PRELOAD=jemalloc(),
                         MALLOC_CONF=environ['MALLOC_CONF']))
  assert got['decay'] == 20000


def test_refuses_an_unknown_strategy(start):
  process, report = start(MEM_USAGE_STRATEGY='maxx')
  _, said = process.communicate(timeout=60)
  assert process.returncode == 1 and not os.path.exists(report)
  assert said == ('launch.py: MEM_USAGE_STRATEGY must be one of 244, 251, '
                  "close, max, mid, min, xmid, xmin, got 'maxx'.\n")


@pytest.mark.parametrize('environ, message', [
    ({'MEM_USAGE_STRATEGY': 'max', 'JEMALLOC_PATH': '/nowhere/libjemalloc.so'},
     'MEM_USAGE_STRATEGY=max needs jemalloc, and there is none at '
     '/nowhere/libjemalloc.so. Install it (apt-get install libjemalloc2)'),
    ({'LD_PRELOAD': '/nowhere/libx.so'},
     "LD_PRELOAD must name existing files, got '/nowhere/libx.so'"),
])
def test_says_that_a_library_is_missing(start, environ, message):
  process, report = start(**environ)
  _, said = process.communicate(timeout=60)
  assert process.returncode == 1 and message in said
  assert not os.path.exists(report)


def test_is_replaced_by_the_trainer(start):
  process, report = start('--gin_file=x', 'a b')
  got = report_of(process, report)
  assert got['pid'] == process.pid
  assert got['argv'][-2:] == ['--gin_file=x', 'a b']


def test_exit_status_is_the_trainers(start):
  process, _ = start('fail')
  process.communicate(timeout=60)
  assert process.returncode == 7


@pytest.mark.parametrize('how, suffix, status', [
    ('wait', '', -signal.SIGTERM), ('catch', '.ready', 143)])
def test_sigterm_reaches_the_trainer(start, how, suffix, status):
  process, report = start(how)
  for _ in range(600):
    if os.path.exists(report + suffix):
      break
    time.sleep(0.1)
  process.terminate()
  process.communicate(timeout=30)
  assert process.returncode == status


def test_two_tasks_share_a_host(start, tmp_path):
  running = [start('task-%d' % i, TF_CONFIG='{"task": %d}' % i)
             for i in range(2)]
  got = [report_of(*one) for one in running]
  assert [g['argv'][-1] for g in got] == ['task-0', 'task-1']
  assert [g['environ']['TF_CONFIG'] for g in got] == [
      '{"task": 0}', '{"task": 1}']
  # What is written down is the stand-in's.
  assert sorted(os.listdir(str(tmp_path))) == [
      'ple_estimator', 'report-0', 'report-1']


def test_a_mistake_of_the_user_ends_with_status_1():
  done = subprocess.run(
      [sys.executable, os.path.join(FOLDER, 'launch.py'),
       '--gin_file=gin/nope.gin'], cwd=conftest.ROOT, stdout=subprocess.PIPE,
      stderr=subprocess.PIPE, universal_newlines=True)
  assert done.returncode == 1
  assert "must name an existing file, got 'gin/nope.gin'" in done.stderr


def cgroups(tmp_path, own, files):
  """Returns what cpu_limit says of a process in these groups."""
  (tmp_path / 'own').write_text(own)
  for path, text in files.items():
    file = tmp_path / 'fs' / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + '\n')
  return launch['cpu_limit'](str(tmp_path / 'own'), str(tmp_path / 'fs'))


@pytest.mark.parametrize('own, files, limit', [
    # Version 2: a container sees its own group at the root.
    ('0::/\n', {'cpu.max': '400000 100000'}, 4),
    ('0::/\n', {'cpu.max': 'max 100000'}, None),
    # On a host, the least of all groups around.
    ('0::/a.slice/b.scope\n', {
        'a.slice/cpu.max': '150000 100000',
        'a.slice/b.scope/cpu.max': '800000 100000'}, 1.5),
    # Version 1, by its two usual names.
    ('4:cpu,cpuacct:/\n1:memory:/x\n', {
        'cpu,cpuacct/cpu.cfs_quota_us': '250000',
        'cpu,cpuacct/cpu.cfs_period_us': '100000'}, 2.5),
    ('4:cpu:/\n', {'cpu/cpu.cfs_quota_us': '-1',
                   'cpu/cpu.cfs_period_us': '100000'}, None),
    # The path is the host's, the mount the container's.
    ('4:cpu,cpuacct:/kubepods/pod1/c\n0::/\n', {
        'cpu,cpuacct/cpu.cfs_quota_us': '300000',
        'cpu,cpuacct/cpu.cfs_period_us': '100000'}, 3),
    # Both versions at once: version 2 has no controllers.
    ('1:cpu:/\n0::/\n', {
        'cpu/cpu.cfs_quota_us': '50000', 'cpu/cpu.cfs_period_us': '100000',
        'unified/cgroup.procs': ''}, 0.5),
    ('3:cpuset:/\n', {'cpu.max': '100000 100000'}, None),
    ('', {}, None),
])
def test_reads_the_limit_of_the_processor(tmp_path, own, files, limit):
  assert cgroups(tmp_path, own, files) == limit


@pytest.mark.parametrize('limit, processors, threads', [
    (None, 64, None), (64, 64, None), (4, 64, 4), (2.5, 64, 3), (0.5, 64, 1)])
def test_threads_follow_a_limit_below_the_processors(
    limit, processors, threads):
  assert launch['num_threads'](limit, processors) == threads


def test_threads_come_before_what_the_user_binds():
  mine = ['--gin_file=x', '--gin_bindings=run_config.intra_op_threads = 1']
  line = launch['command'](mine, 4)
  assert line[1:3] == ['-m', 'ple_estimator.run'] and line[-2:] == mine
  assert line[3:5] == ['--gin_bindings=run_config.inter_op_threads = 4',
                       '--gin_bindings=run_config.intra_op_threads = 4']
  assert launch['command'](mine, None)[3:] == mine


def test_runs_on_python_3_6():
  # Python 3.7 itself cannot read as 3.6 does; .ci/run has a 3.6 compile it.
  version = {'feature_version': (3, 6)} if sys.version_info >= (3, 8) else {}
  tree = ast.parse(text_of('launch.py'), **version)
  assert {name.name for n in ast.walk(tree) if isinstance(n, ast.Import)
          for name in n.names} == {'glob', 'math', 'os', 'sys'}


# ------------------------------------------------------------ a job, for real


def tasks_of(job):
  """Yields (type, index, container, TF_CONFIG) as the operator makes them.

  Ports of this machine take the place of the services' names.
  """
  specs = job['spec']['tfReplicaSpecs']
  cluster = {kind.lower(): ['localhost:%d' % conftest.free_port()
                            for _ in range(spec['replicas'])]
             for kind, spec in specs.items()}
  for kind, spec in specs.items():
    container, = spec['template']['spec']['containers']
    for index in range(spec['replicas']):
      yield kind.lower(), index, container, json.dumps({
          'cluster': cluster, 'environment': 'cloud',
          'task': {'type': kind.lower(), 'index': index}})


def process_of(container, folders, more_args):
  """Returns (command line, environment, folder) of a container.

  As the kubelet puts them together of image and pod, with the paths of a
  volume, of the code and of Python being those of this machine.
  """
  image = dockerfile()[1][-1]
  here = dict({image['WORKDIR']: conftest.ROOT}, **folders)
  pattern = re.compile('|'.join(
      r'(?<![\w/])%s(?![\w-])' % re.escape(path) for path in here))

  def local(text):
    return pattern.sub(lambda found: here[found.group()], text)
  line = container.get('command', image['ENTRYPOINT']) + container.get(
      'args', image['CMD']) + more_args
  # No local process is process 1, which is what tini is for.
  assert line[:3] == ['tini', '--', 'python']
  environ = dict(image['ENV'])
  environ.update((one['name'], one['value']) for one in container['env'])
  environ = {name: local(value) for name, value in environ.items()}
  environ['PATH'] = os.environ['PATH']
  if jemalloc():
    environ['LD_PRELOAD'] = jemalloc()
  else:
    del environ['LD_PRELOAD']
    environ['MEM_USAGE_STRATEGY'] = 'close'
  return ([sys.executable] + [local(word) for word in line[3:]], environ,
          local(image['WORKDIR']))


@pytest.mark.cluster
@each_job
def test_manifest_runs_as_local_processes(name, taobao, tmp_path):
  job, = documents(name)
  mounts = job['spec']['tfReplicaSpecs']['Chief']['template']['spec'][
      'containers'][0]['volumeMounts']
  folders = {}
  for mount in mounts:
    folders[mount['mountPath']] = str(tmp_path / mount['name'])
    (tmp_path / mount['name']).mkdir()
  for path in glob.glob(os.path.join(taobao, '*')):
    shutil.copy(path, folders['/data'])
  # What a user would add to args for a short run.
  short = ['--gin_bindings=' + line for line in SMALL + FEW_COLUMNS + [
      'PLE.num_levels = 1', 'Experiment.max_steps = 60',
      'run_config.save_steps = 30']]
  running = {}
  try:
    for kind, index, container, tf_config in tasks_of(job):
      line, environ, cwd = process_of(container, folders, short)
      log = tmp_path / ('%s-%d.log' % (kind, index))
      running[log] = subprocess.Popen(
          line, cwd=cwd, env=dict(environ, TF_CONFIG=tf_config),
          stdout=log.open('w'), stderr=subprocess.STDOUT)
    deadline = time.time() + 300
    while time.time() < deadline and any(
        process.poll() is None for process in running.values()):
      time.sleep(0.5)
    ended = {log.stem: process.poll() for log, process in running.items()}
    assert set(ended.values()) == {0}, '%s\n%s' % (ended, '\n'.join(
        '== %s\n%s' % (log.stem, log.read_text()[-3000:]) for log in running))
  finally:
    for process in running.values():
      if process.poll() is None:
        process.kill()
      process.wait()
  model_dir, = (tmp_path / 'result').iterdir()
  with (model_dir / 'metrics.json').open() as f:
    metrics = json.load(f)
  assert metrics['global_step'] >= 60 and 0 <= metrics['ctr/auc'] <= 1
  assert list((model_dir / 'export' / 'latest').iterdir())
