"""Signed bundles: only the key that was asked for opens them, and no change goes unnoticed."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ndp_rt import Inspector
from ndp_rt.bundle import open_bundle, update_manifest
from ndp_rt.bundle.write import replace_files
from ndp_rt.cli import main
from ndp_rt.editing import sign
from ndp_rt.errors import BundleError, InputError
from tests.keys import make_keys

pytest.importorskip("cryptography", reason="needs cryptography: pip install 'ndp-rt[sign]'")


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return make_keys(tmp_path, "own")


def test_a_signed_bundle_opens_with_its_key_and_without(folder: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    assert main(["sign", str(folder), "--key", str(private)]) == 0
    signed = open_bundle(folder, require_signature=public)
    assert signed == open_bundle(folder)
    moved = Path(shutil.move(folder, folder.with_name("renamed.ndp")))
    assert open_bundle(moved, require_signature=public).fingerprint == signed.fingerprint


def test_keys_of_openssh_are_taken(folder: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    (tmp_path / "id").write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.OpenSSH, s.NoEncryption()))
    (tmp_path / "id.pub").write_bytes(key.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH))
    sign(folder, tmp_path / "id")
    open_bundle(folder, require_signature=tmp_path / "id.pub")


def test_an_unsigned_bundle_is_refused(folder: Path, keys: tuple[Path, Path]) -> None:
    with pytest.raises(BundleError, match=r"expected a signed bundle, got one without signature\.json"):
        open_bundle(folder, require_signature=keys[1])
    with pytest.raises(BundleError, match="expected a signed bundle"):
        Inspector.open(folder, require_signature=keys[1])


def test_another_key_is_refused(folder: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    sign(folder, make_keys(tmp_path, "other")[0])
    with pytest.raises(BundleError, match="got one that was signed with another key"):
        open_bundle(folder, require_signature=keys[1])


def test_a_threshold_set_after_signing_is_refused_until_it_is_signed_again(
    folder: Path, keys: tuple[Path, Path]
) -> None:
    sign(folder, keys[0])
    update_manifest(open_bundle(folder), lambda now: replace(now, thresholds={}))
    with pytest.raises(BundleError, match="got one that was changed after it was signed"):
        open_bundle(folder, require_signature=keys[1])
    sign(folder, keys[0])
    open_bundle(folder, require_signature=keys[1])


def test_an_attacker_who_mends_all_hashes_is_refused(folder: Path, keys: tuple[Path, Path]) -> None:
    sign(folder, keys[0])
    signature = (folder / "signature.json").read_bytes()
    replace_files(open_bundle(folder), {"reference.png": b"another"}, lambda now: now)
    assert not (folder / "signature.json").exists()
    (folder / "signature.json").write_bytes(signature)
    open_bundle(folder)
    with pytest.raises(BundleError, match="got one that was changed after it was signed"):
        open_bundle(folder, require_signature=keys[1])


def test_a_file_changed_after_signing_is_refused_even_unverified(folder: Path, keys: tuple[Path, Path]) -> None:
    sign(folder, keys[0])
    content = bytearray((folder / "weights.bin").read_bytes())
    content[0] ^= 1
    (folder / "weights.bin").write_bytes(content)
    with pytest.raises(BundleError, match=r"weights\.bin: expected SHA-256"):
        open_bundle(folder, verify=False, require_signature=keys[1])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"public_key": 5, "signature": "00"}', "[" * 100_000, "\x00"])
def test_damaged_signatures_are_bundle_errors(folder: Path, keys: tuple[Path, Path], content: str) -> None:
    (folder / "signature.json").write_text(content)
    with pytest.raises(BundleError, match=r"signature\.json: expected a signature"):
        open_bundle(folder, require_signature=keys[1])


@pytest.mark.parametrize("change", ["signature", "public_key"])
def test_mutated_signatures_are_bundle_errors(folder: Path, keys: tuple[Path, Path], change: str) -> None:
    sign(folder, keys[0])
    document = json.loads((folder / "signature.json").read_text())
    document[change] = "00" + document[change][2:] if not document[change].startswith("00") else "11"
    (folder / "signature.json").write_text(json.dumps(document))
    if change == "public_key":  # for messages alone: the key that was asked for decides
        open_bundle(folder, require_signature=keys[1])
        return
    with pytest.raises(BundleError, match="expected a bundle signed with"):
        open_bundle(folder, require_signature=keys[1])


@pytest.mark.parametrize("content", [b"", b"no key", b"ssh-ed25519 AAAA", b"-----BEGIN PUBLIC KEY-----\n"])
def test_what_is_no_key_is_an_input_error(folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    for use in (
        lambda: open_bundle(folder, require_signature=tmp_path / "key"),
        lambda: sign(folder, tmp_path / "key"),
    ):
        with pytest.raises(InputError, match="Make one with: openssl"):
            use()


def test_keys_of_another_kind_are_refused(folder: Path, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    key = X25519PrivateKey.generate()
    (tmp_path / "x.pem").write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()))
    with pytest.raises(InputError, match="expected an Ed25519 private key, got X25519"):
        sign(folder, tmp_path / "x.pem")
    with pytest.raises(InputError, match="this key cannot be read"):
        sign(folder, tmp_path / "missing.pem")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt install openssl")
def test_the_commands_of_the_help_make_keys(folder: Path, tmp_path: Path) -> None:
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", "key.pem"], cwd=tmp_path, check=True)
    subprocess.run(["openssl", "pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"], cwd=tmp_path, check=True)
    sign(folder, tmp_path / "key.pem")
    open_bundle(folder, require_signature=tmp_path / "key.pub")


def test_inspect_requires_what_it_is_told(
    folder: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["inspect", str(folder), str(folder / "reference.png"), "-o", str(tmp_path / "out")]
    assert main([*arguments, "--require-signature", str(keys[1])]) == 1
    assert "expected a signed bundle" in capsys.readouterr().err
