"""Packaging: the interpreter decides which TensorFlow is the engine."""

import re

import setuptools

with open('README.md', encoding='utf-8') as f:
  README = f.read()
with open('ple_estimator/__init__.py', encoding='utf-8') as f:
  VERSION = re.search(r"__version__ = '(.*)'", f.read()).group(1)
_LINUX = 'sys_platform=="linux" and platform_machine=="x86_64"'

setuptools.setup(
    name='ple-estimator',
    version=VERSION,
    description='Trains Progressive Layered Extraction (PLE) multi-task '
                'recommendation models from .gin files on tf.estimator.',
    long_description=README,
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.7,<3.12,!=3.8.*',
    packages=setuptools.find_packages(include=['ple_estimator*']) + [
        'ple_estimator.gin'],
    # The .gin files travel with the package, so that --gin_file=gin/bf16.gin
    # works from any folder.
    package_dir={'ple_estimator.gin': 'gin'},
    package_data={
        'ple_estimator.engine': ['kernels/*'],
        'ple_estimator.commands.report': ['page.*'],
        'ple_estimator.gin': ['*.gin']},
    install_requires=[
        'absl-py',
        'gin-config>=0.5.0',
        # For the fused kernels (ple_estimator/engine/native.py).
        'onednn-cpu-gomp==2023.2.0; ' + _LINUX,
        'onednn-devel-cpu-gomp==2023.2.0; ' + _LINUX,
        # A DeepRec wheel (1.15.5+deeprec...) satisfies this too.
        'tensorflow==1.15.5; python_version<"3.8"',
        'protobuf<3.21; python_version<"3.8"',
        # 2.15 is the last TensorFlow with Estimator. The CPU build is a tenth
        # of the size; the GPU build is tensorflow[and-cuda]==2.15.*.
        'tensorflow-cpu==2.15.*; python_version>="3.9"',
        'numpy<2',
        'pyarrow>=8,<19',  # 19 needs numpy 2
    ],
    extras_require={
        'docs': ['sphinx', 'myst-parser', 'furo'],  # make docs
        # Of ple-estimator report: Vega and Vega-Lite in one package, and
        # templates of HTML.
        'report': ['vl-convert-python>=1.9', 'jinja2>=3'],
        'plots': ['matplotlib'],  # the figure of tools/study.py
        'reference': ['scikit-learn'],  # tools/linear_reference.py
        'sweep': ['optuna>=3.6'],  # @Optuna(); 4.0 is the last for Python 3.7
        'test': [
            'pytest',
            'pytest-timeout',
            'pytest-xdist>=3.2',  # --dist worksteal
            'vl-convert-python>=1.9',
            'jinja2>=3',
            'html5lib',  # reads the page of a report strictly
            'scikit-learn',  # 1.0 is the last for Python 3.7
            # An S3 server on loopback; 4.2.14 is the last for Python 3.7.
            'moto[s3]>=4.2',
            'flask',
            'flask-cors',
            'optuna>=3.6',
            # For the manifests; what kubernetes-validate needs is not for 3.7.
            'jsonschema',
            'pyyaml',
            'kubernetes-validate; python_version>="3.9"',
        ],
    },
    entry_points={
        'console_scripts': ['ple-estimator = ple_estimator.run:console']},
)
