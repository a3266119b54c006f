"""A network of their own for the processes of a local cluster.

TensorFlow's servers listen on all interfaces of a machine, whatever address
they are given (0.0.0.0 and ::, in 1.15 and 2.15 alike), and run whatever graph
they are sent: whoever reaches the port can run code as the user. There is no
setting for it. But Linux gives a process a network that has a loopback alone,
and so to all that it starts: there nobody else can reach it, nor can it reach
anybody else.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # of unshare(2)
_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914  # of netdevice(7)
_IS_UP = 1
_REQUEST = '16sH14x'


def enter():
  """Moves this process to a network that has a loopback alone.

  Those that its thread starts from now on are in it too. Without the right to
  make one (it is the system's choice who has it) nothing changes.

  Raises:
    OSError: if the system does not allow it.
  """
  # First in a process that is of no further use: what fails half-way would
  # leave this one without any network.
  trial = os.fork()
  if not trial:
    os._exit(_try())
  _, status = os.waitpid(trial, 0)
  code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else errno.EPERM
  if code:
    raise OSError(code, os.strerror(code))
  _enter()


def _try():
  """Returns 0, or the number of the error."""
  try:
    _enter()
    return 0
  except OSError as error:
    return error.errno or errno.EPERM


def _enter():
  libc = ctypes.CDLL(None, use_errno=True)
  user, group = os.getuid(), os.getgid()
  # Root may make a network as it is. Others may if they are root to it; to the
  # file system they stay who they are.
  flags = _NEW_NET | (_NEW_USER if user else 0)
  if not hasattr(libc, 'unshare'):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
  if libc.unshare(flags):
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
  if user:
    _write('setgroups', 'deny')
    _write('uid_map', '%d %d 1' % (user, user))
    _write('gid_map', '%d %d 1' % (group, group))
  _bring_up('lo')


def _write(name, text):
  with open('/proc/self/' + name, 'w') as f:
    f.write(text)


def _bring_up(name):
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    request = struct.pack(_REQUEST, name.encode(), 0)
    _, flags = struct.unpack(
        _REQUEST, fcntl.ioctl(control, _GET_FLAGS, request))
    fcntl.ioctl(control, _SET_FLAGS, struct.pack(
        _REQUEST, name.encode(), flags | _IS_UP))
