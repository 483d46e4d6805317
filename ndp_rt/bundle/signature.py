"""Signs bundles and checks their signatures (Ed25519), by the package cryptography.

A signature is over the bytes of manifest.json, which has the hash of every other file. It lies beside them and is no
part of the bundle: changing the bundle makes it worthless, and replacing the bundle leaves it behind.
"""

import json
from pathlib import Path
from typing import Any

from ndp_rt.bundle.manifest import read_limited
from ndp_rt.errors import BundleError, InputError, needs_extra
from ndp_rt.files import write_atomically

SIGNATURE_FILE = "signature.json"
SIGNATURE_FORMAT = "ndp-rt signature"
SIGNED_FOR = b"ndp-rt bundle\0"  # before the manifest, so that a signature of something else with the key is none
EXTRA = "sign"


def write_signature(folder: Path, content: bytes, key_path: Path) -> None:
    """Sign a bundle.

    Args:
        folder: the bundle.
        content: of its manifest.json.
        key_path: an Ed25519 private key, PEM or OpenSSH, without a passphrase.

    Raises:
        InputError: it is no such key.
        MissingExtraError: cryptography is not installed.
        StorageError: the signature cannot be written.
    """
    key = _load_key(key_path, is_private=True)
    document = {
        "format": SIGNATURE_FORMAT,
        "algorithm": "ed25519",
        "public_key": key.public_key().public_bytes_raw().hex(),
        "signature": key.sign(SIGNED_FOR + content).hex(),
    }
    write_atomically(folder / SIGNATURE_FILE, (json.dumps(document, indent=2) + "\n").encode())


def check_signature(folder: Path, content: bytes, key_path: Path) -> None:
    """Check that a bundle was signed with a key, and has not changed since.

    Args:
        folder: the bundle.
        content: of its manifest.json.
        key_path: the Ed25519 public key, PEM or OpenSSH.

    Raises:
        BundleError: it was not.
        InputError: there is no such key at `key_path`.
        MissingExtraError: cryptography is not installed.
    """
    key = _load_key(key_path, is_private=False)
    from cryptography.exceptions import InvalidSignature

    path = folder / SIGNATURE_FILE
    remedy = f"Do not use this bundle unless you know who made it; its maker signs it with: ndp-rt sign {folder.name}"
    try:
        document = json.loads(read_limited(path))
        public_key, signature = (bytes.fromhex(document[name]) for name in ("public_key", "signature"))
    except FileNotFoundError as error:
        raise BundleError(f"{folder}: expected a signed bundle, got one without {SIGNATURE_FILE}. {remedy}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, BundleError):
            raise
        raise BundleError(f"{path}: expected a signature, got something else ({error!r}). {remedy}") from error
    try:
        key.verify(signature, SIGNED_FOR + content)
    except InvalidSignature as error:
        why = (
            "was changed after it was signed" if public_key == key.public_bytes_raw() else "was signed with another key"
        )
        raise BundleError(
            f"{folder}: expected a bundle signed with {key_path}, got one that {why}. {remedy}"
        ) from error


def _load_key(path: Path, *, is_private: bool) -> Any:
    """Return an Ed25519PrivateKey or Ed25519PublicKey."""
    with needs_extra("signing bundles, and checking their signatures,", EXTRA):
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    kind, wanted = ("private", ed25519.Ed25519PrivateKey) if is_private else ("public", ed25519.Ed25519PublicKey)
    make = f"Make one with: openssl genpkey -algorithm ed25519 -out key.pem{'' if is_private else PUBLIC_PART}"
    try:
        content = path.read_bytes()
        key: Any
        if is_private:
            is_ssh = b"OPENSSH PRIVATE KEY" in content
            load = serialization.load_ssh_private_key if is_ssh else serialization.load_pem_private_key
            key = load(content, password=None)
        elif content.startswith(b"ssh-"):
            key = serialization.load_ssh_public_key(content)
        else:
            key = serialization.load_pem_public_key(content)
    except OSError as error:
        raise InputError(f"{path}: this key cannot be read ({error.strerror or error}). {make}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a passphrase
        raise InputError(f"{path}: expected a {kind} key without a passphrase, got none ({error}). {make}") from error
    if not isinstance(key, wanted):
        raise InputError(f"{path}: expected an Ed25519 {kind} key, got {type(key).__name__}. {make}")
    return key


PUBLIC_PART = ", and its public part with: openssl pkey -in key.pem -pubout -out key.pub"
