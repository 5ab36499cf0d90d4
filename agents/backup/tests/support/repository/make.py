"""Makes the repository that the tests begin with: `config` and `keys/`, as `restic init` makes them, but for what a key costs. And
`lock/`, which a test puts into it.

`restic init` chooses a key that takes this machine half a second to open, and so does each call of restic from then on. The
same master key stands here under passwords that are no secrets, opened in no time. Nobody but tests may have such a key. The lock
is another machine's and of long ago, which nobody can have restic make: it asks the system for the time, past all libraries.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install cryptography
    /tmp/venv/bin/python agents/backup/tests/support/repository/make.py

It needs restic, and writes beside itself; what was there goes. The form of a key is in restic's design document, "Keys,
Encryption and MAC", and that of a lock in "Locks".
"""

import base64
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

# As `support/repository.rs` has them.
PASSWORDS = ["correct horse", "whispered horse"]
# The least that restic takes.
CHEAP = {"N": 2, "r": 1, "p": 1}
# As restic writes one, which takes it for stale after half an hour.
LOCK = {"time": "2020-01-01T00:00:00Z", "exclusive": False, "hostname": "elsewhere", "username": "test", "pid": 7}


def derived(password: str, key: dict) -> tuple[bytes, bytes, bytes]:
    """For AES-256 in counter mode, and the two halves of Poly1305-AES."""
    salt = base64.b64decode(key["salt"])
    octets = hashlib.scrypt(
        password.encode(), salt=salt, n=key["N"], r=key["r"], p=key["p"], dklen=64, maxmem=1 << 30
    )
    return octets[:32], octets[32:48], octets[48:]


def aes(key: bytes, mode: modes.Mode, octets: bytes) -> bytes:
    cipher = Cipher(algorithms.AES(key), mode).encryptor()
    return cipher.update(octets) + cipher.finalize()


def mac(k: bytes, r: bytes, nonce: bytes, octets: bytes) -> bytes:
    return Poly1305.generate_tag(r + aes(k, modes.ECB(), nonce), octets)


def encrypted(encrypt: bytes, k: bytes, r: bytes, octets: bytes) -> bytes:
    nonce = os.urandom(16)
    octets = aes(encrypt, modes.CTR(nonce), octets)
    return nonce + octets + mac(k, r, nonce, octets)


def opened(password: str, key: dict) -> bytes:
    encrypt, k, r = derived(password, key)
    data = base64.b64decode(key["data"])
    nonce, octets, tag = data[:16], data[16:-16], data[-16:]
    assert mac(k, r, nonce, octets) == tag, "this is not how restic encrypts"
    return aes(encrypt, modes.CTR(nonce), octets)


def sealed(password: str, master: bytes) -> bytes:
    key = {"created": "2026-01-01T00:00:00Z", "username": "test", "hostname": "test", "kdf": "scrypt", **CHEAP}
    key["salt"] = base64.b64encode(os.urandom(64)).decode()
    key["data"] = base64.b64encode(encrypted(*derived(password, key), master)).decode()
    return json.dumps(key, separators=(",", ":")).encode()


def locked(master: bytes) -> bytes:
    key = json.loads(master)
    encrypt, k, r = (base64.b64decode(part) for part in (key["encrypt"], key["mac"]["k"], key["mac"]["r"]))
    return encrypted(encrypt, k, r, json.dumps(LOCK, separators=(",", ":")).encode())


def write(folder: str, files: list[bytes]) -> None:
    shutil.rmtree(here / folder, ignore_errors=True)
    (here / folder).mkdir()
    for octets in files:
        (here / folder / hashlib.sha256(octets).hexdigest()).write_bytes(octets)


here = pathlib.Path(__file__).parent
with tempfile.TemporaryDirectory() as scratch:
    made = pathlib.Path(scratch, "repository")
    environment = {**os.environ, "RESTIC_PASSWORD": PASSWORDS[0], "RESTIC_CACHE_DIR": scratch}
    subprocess.run(["restic", "-r", made, "init"], env=environment, check=True)
    shutil.copyfile(made / "config", here / "config")
    (first,) = (made / "keys").iterdir()
    master = opened(PASSWORDS[0], json.loads(first.read_bytes()))
write("keys", [sealed(password, master) for password in PASSWORDS])
write("lock", [locked(master)])
