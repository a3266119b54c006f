"""Imports every module of the package with names that a .gin file may bind.

So a .gin file has to import only modules of the user.
"""

from ple_estimator import model  # noqa: F401
from ple_estimator.balancing import dynamic_weight_average  # noqa: F401
from ple_estimator.balancing import grad_norm  # noqa: F401
from ple_estimator.balancing import pcgrad  # noqa: F401
from ple_estimator.balancing import uncertainty_weights  # noqa: F401
from ple_estimator.cluster import roles  # noqa: F401
from ple_estimator.cluster.work_queue import work_queue  # noqa: F401
from ple_estimator.data import feature_spec  # noqa: F401
from ple_estimator.data import inputs  # noqa: F401
from ple_estimator.embeddings import admission  # noqa: F401
from ple_estimator.embeddings import attention  # noqa: F401
from ple_estimator.embeddings import hashed  # noqa: F401
from ple_estimator.embeddings import keyed  # noqa: F401
from ple_estimator.engine import forms  # noqa: F401
from ple_estimator.interactions import binned  # noqa: F401
from ple_estimator.interactions import cross_net  # noqa: F401
from ple_estimator.interactions import dot_products  # noqa: F401
from ple_estimator.interactions import factorization_machine  # noqa: F401
from ple_estimator.interactions import field_weighted  # noqa: F401
from ple_estimator.interactions import periodic  # noqa: F401
from ple_estimator.interactions import wide  # noqa: F401
from ple_estimator.metrics import chosen  # noqa: F401
from ple_estimator.network import batch_norm  # noqa: F401
from ple_estimator.network import losses  # noqa: F401
from ple_estimator.network import ple  # noqa: F401
from ple_estimator.network import precision  # noqa: F401
from ple_estimator.network import tasks  # noqa: F401
from ple_estimator.network import towers  # noqa: F401
from ple_estimator.network import transfer  # noqa: F401
from ple_estimator.optimizers import averaging  # noqa: F401
from ple_estimator.optimizers import factories  # noqa: F401
from ple_estimator.training import daily  # noqa: F401
from ple_estimator.training import early_stopping  # noqa: F401
from ple_estimator.training import exports  # noqa: F401
from ple_estimator.training import incremental  # noqa: F401
from ple_estimator.training import warm_start  # noqa: F401
