"""The comparison of a disk with a store."""

import os
import re

from conftest import tool
import pyarrow as pa
import pyarrow.fs
import pytest


@pytest.mark.slow
def test_a_disk_and_a_store_are_compared(store, taobao):
  store.put('rows/any', '')  # makes the bucket
  done = tool('benchmark_remote', os.path.join(taobao, 'taobao_test_data'),
              os.path.join(taobao, 'taobao_test_data.parquet'),
              '--to', 's3://rows/speed', '--rounds', '1', '--copies', '2')
  assert done.returncode == 0, done.stderr
  found = re.findall(r'^(\S+): (\d+) rows/s from the disk, (\d+) from the '
                     r'store, ratio (\S+) ', done.stdout, re.MULTILINE)
  assert [name for name, _, _, _ in found] == [
      'taobao_test_data', 'taobao_test_data.parquet']
  for _, here, there, ratio in found:
    assert abs(int(there) / int(here) - float(ratio)) < 0.02
  names = [info.base_name for info in store.client.get_file_info(
      pa.fs.FileSelector('rows/speed', recursive=True)) if info.is_file]
  assert sorted(names) == ['00', '00.parquet', '01', '01.parquet']
