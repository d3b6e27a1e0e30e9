"""A real web server in a lab: Debian's nginx, for files over TLS."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.files import WebServer
from tests.support.lab import Lab
from tests.support.tls import CertificateFiles

_SETTINGS = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr info;
events {{ worker_connections 64; }}
http {{
  log_format asked '$uri $http_if_none_match $status $ssl_client_verify';
  access_log {folder}/requests.log asked;
  client_body_temp_path {folder}/temporary;
  server {{
    listen {address}:443 ssl;
    root {folder}/files;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    ssl_client_certificate {clients};
    ssl_verify_client on;
  }}
}}
"""


@contextmanager
def nginx(
    lab: Lab, folder: Path, address: str, certificate: CertificateFiles, clients: str
) -> Iterator[WebServer]:
    """Serve to whom the authority `clients` has given a certificate.

    A request is one line in the server's `requests`: path, If-None-Match, status, verified.
    """
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert program is not None, "nginx is needed: apt-get install nginx-light"
    (folder / "files").mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "nginx.conf").write_text(
        _SETTINGS.format(
            folder=folder, address=address, clients=clients,
            certificate=certificate.certificate, key=certificate.key,
        )
    )  # fmt: skip
    command = (program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr")
    with lab.program(*command, directory=folder, log=str(folder / "nginx.log")) as process:
        process.ready(lambda: (folder / "pid").exists(), "is ready")
        yield WebServer(f"https://{address}", folder / "files", process)
