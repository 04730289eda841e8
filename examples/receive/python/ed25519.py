"""Verifies signatures of the kind v1a, which the library does not."""
import base64
import time

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class PublicKey:
    def __init__(self, key):
        self.key = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.removeprefix("whpk_")))

    def verify(self, body, headers):
        """Raises an exception unless the owner of the private key signed the body
        within the last five minutes."""
        moment = headers["webhook-timestamp"]
        if abs(time.time() - int(moment)) > 300:
            raise ValueError("too old, or from the future")
        signed = f"{headers['webhook-id']}.{moment}.".encode() + body
        for signature in headers["webhook-signature"].split():  # several while a key is changed
            kind, _, value = signature.partition(",")
            if kind != "v1a":
                continue
            try:
                return self.key.verify(base64.b64decode(value), signed)
            except InvalidSignature:
                pass
        raise ValueError("no signature fits")
