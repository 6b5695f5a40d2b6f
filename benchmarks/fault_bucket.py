"""Case of benchmarks.faults: a bucket whose server refuses, stalls or cuts its answers off.

The client is the real one (TensorFlow's, which etils.epath uses for gs://). It connects through our
own proxy, which lets nothing leave this machine. The client retries with its own settings; the
program waits for it at most `workdir.WAIT`. The row says how often the client tried, and after how
many seconds the error line came.
"""
import contextlib
import socket
import threading
import time

from benchmarks import fault_bench
from ilm_jax.config import workdir as workdir_lib

WITHIN = workdir_lib.WAIT + 60      # seconds until the error line, with start and end
_SAYS = "gs://ilm-jax-fault-case/run(: no answer within| cannot be read or written)"
# The proxy's answer before it closes; None: it neither answers nor closes.
ANSWERS = {"refuses": b"", "stalls": None,
           "answers half": b"HTTP/1.1 200 Connection established\r\n\r\n\x16\x03\x03\x00"}


def bucket(bench: fault_bench.Bench):
  """Stage eval, which reads first, with a workdir in an unreachable bucket."""
  for how, answer in ANSWERS.items():
    began = time.monotonic()
    with proxy(answer) as (address, calls):
      job = bench.job("eval", "gs://ilm-jax-fault-case/run", environment={
          "https_proxy": address, "http_proxy": address, "NO_GCE_CHECK": "true"})
      wrong = bench.in_one_line(job, _SAYS)
    seconds = time.monotonic() - began
    if not wrong and (not calls or seconds > WITHIN):
      wrong = f"tried {len(calls)} times, ended after {seconds:.0f} s"
    yield fault_bench.row(f"bucket {how}", 1, [wrong],
                          f"tried {len(calls)} times in {seconds:.0f} s")


@contextlib.contextmanager
def proxy(answer: bytes | None):
  """(its address, a list that grows with each connection); see ANSWERS."""
  calls: list[socket.socket] = []
  with socket.create_server(("127.0.0.1", 0)) as server:
    def serve():
      with contextlib.suppress(OSError):        # the client has closed it
        while True:
          client, _ = server.accept()
          calls.append(client)
          if answer is not None:
            with client:
              client.recv(1 << 16)
              client.sendall(answer)
    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", calls
    server.shutdown(socket.SHUT_RDWR)
  for client in calls:
    client.close()
